"""Whether the scores of an iteration can teach anything: a reward without spread moves no policy towards a better one."""

from typing import NamedTuple

from tasks.engine.errors import NothingToLearn
from tasks.ppo.config import PPOConfig
from tasks.ppo.rollout import Rollout

ROUNDING = 1e-6
"""Scores nearer than this, relative to their size, are one number."""
ENOUGH = 8
"""Episodes that do not agree by chance; those of smaller iterations are counted together."""


class Alike(NamedTuple):
    """The latest episodes that scored alike."""

    score: float = 0.0
    """What they scored; against the mean of their prompt's responses where those are compared."""
    episodes: int = 0


def check_start(rollout: Rollout, config: PPOConfig) -> None:
    """Refuse a policy that never ends, before it is trained.

    Raises:
        NothingToLearn: enough responses were sampled, none ended, and the rule for a missing EOS covers every score.
    """
    episodes = len(rollout.score)
    if episodes >= ENOUGH and config.missing_eos != "none" and not bool(rollout.finished.any()):
        raise NothingToLearn(
            f"ppo: EOS rate 0: none of the {episodes} responses sampled before training ended within response_tokens "
            f"({config.response_tokens}), expected some; all are scored as cut off (ppo.missing_eos={config.missing_eos}: "
            f"{float(rollout.score.min()):.3g} to {float(rollout.score.max()):.3g}). Raise data_prep.response_tokens, train "
            "ppo_init longer on demonstrations that fit into it, or set ppo.missing_eos=none to optimise the reward model's "
            "score of cut-off responses"
        )


def check_spread(rollout: Rollout, config: PPOConfig, before: Alike, iteration: int) -> Alike:
    """Count on from ``before``, the count of the iteration before; ``iteration`` is that of ``rollout``, from 1.

    Raises:
        NothingToLearn: enough episodes in a row scored one and the same, all or, where the responses to one prompt are
            compared, within each prompt.
    """
    scores = rollout.score.double()
    if config.reads_values:
        compared, among = scores, "all responses"
    else:
        groups = scores.view(-1, config.responses_per_prompt)
        compared, among = (groups - groups.mean(dim=1, keepdim=True)).flatten(), "all responses to one prompt"
    tolerance = ROUNDING * max(1.0, float(scores.abs().max()))
    if float(compared.max() - compared.min()) > tolerance:
        return Alike()
    score = float(compared.mean())
    goes_on = abs(score - before.score) <= tolerance
    found = Alike(score, len(scores) + (before.episodes if goes_on else 0))
    if found.episodes < ENOUGH:
        return found
    ended = float(rollout.finished.double().mean())
    raise NothingToLearn(
        f"ppo: iteration {iteration}: {among} score the same (mean {float(scores.mean()):.3g}, standard deviation "
        f"{float(compared.std(correction=0)):.1g} over the last {found.episodes} episodes, EOS rate {ended:.2g}), expected "
        f"scores that differ: a reward without spread teaches nothing. {_remedy(ended, config)}"
    )


def _remedy(ended: float, config: PPOConfig) -> str:
    if ended == 0.0 and config.missing_eos != "none":
        return (
            "No response ends any more: raise ppo.beta or data_prep.response_tokens, lower ppo.missing_eos_score, or train "
            "ppo_init longer"
        )
    return (
        "Check that the reward model tells responses apart (its validation accuracy) and that the policy's responses differ "
        "(ppo.temperature, ppo.beta)"
    )
