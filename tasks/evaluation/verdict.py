"""The comparison in words. Every sentence follows from intervals, never from a point estimate alone."""

from collections.abc import Sequence

from tasks.evaluation.comparison import PolicyRow, title_of
from tasks.evaluation.sheet import GOLD, REWARD_MODEL
from tasks.evaluation.win_rate import Interval

JUDGE_TITLES = {GOLD: "gold labeler", REWARD_MODEL: "reward model"}
_NOT_RL = ("base", "sft")


def percent(value: float) -> str:
    """0.6412 -> 64.1 %."""
    return f"{100 * value:.1f} %"


def percent_interval(interval: Interval) -> str:
    """64.1 % [60.1, 68.0]."""
    return f"{percent(interval.estimate)} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def points(interval: Interval) -> str:
    """A change of a share, in signed percentage points: -1.5 [-2.6, -0.4]."""
    return f"{_signed(interval.estimate)} [{_signed(interval.low)}, {_signed(interval.high)}]"


def _signed(share: float) -> str:
    return f"{100 * share + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")


def leading_policy(rows: Sequence[PolicyRow]) -> str:
    """The policy the verdict is about: PPO-ptx if measured, else the last trained by RL, else SFT."""
    policies = [row.policy for row in rows]
    trained = [policy for policy in policies if policy not in _NOT_RL]
    return "ppo_ptx" if "ppo_ptx" in trained else (trained[-1] if trained else "sft")


def verdict(rows: Sequence[PolicyRow], judges: Sequence[str]) -> str:
    """Whether the leading policy beats SFT, at both decodings, and at what tax."""
    by_key = {row.key: row for row in rows}
    policy, judge = leading_policy(rows), judges[0]
    title = title_of(policy)
    if policy == "sft":
        return "Only SFT was measured against itself; train a policy to compare it with."
    sampled, greedy = by_key[policy].win[judge].bootstrap, by_key[f"{policy}_greedy"].win[judge].bootstrap
    text = (
        f"{title} {_standing(sampled)} SFT when both are sampled ({percent_interval(sampled)}) and "
        f"{_standing(greedy)} it when both are greedy ({percent_interval(greedy)}), by the {JUDGE_TITLES[judge]}"
    )
    change = by_key[policy].change_vs_base
    if change is not None:
        text += f"; the benchmark mean moves by {points(change)} points against the base model"
    return text + "."


def notes(rows: Sequence[PolicyRow], judges: Sequence[str]) -> list[str]:
    """The caveats that these numbers call for."""
    by_key = {row.key: row for row in rows}
    policy = leading_policy(rows)
    found = [_who_judges(judges), _sharpening(by_key, policy, judges[0])]
    if policy != "sft":
        found += [
            _over_optimised(by_key, policy, judges),
            _blame(by_key, policy, judges[0]),
            _toxicity(by_key, policy),
        ]
    return [note for note in found if note]


def _standing(rate: Interval) -> str:
    if rate.low > 0.5:
        return "beats"
    return "loses to" if rate.high < 0.5 else "is level with"


def _who_judges(judges: Sequence[str]) -> str:
    if judges[0] == GOLD:
        return ""
    return (
        "The only judge is the reward model that PPO and best-of-n optimised: these win rates show that the "
        "optimisation worked, not that the responses are better."
    )


def _sharpening(by_key: dict[str, PolicyRow], policy: str, judge: str) -> str:
    control = by_key["sft_greedy"].win[judge].bootstrap
    text = (
        "Sharpening control: SFT decoded greedily, with no RL at all, scores "
        f"{percent_interval(control)} against SFT sampled."
    )
    if policy == "sft":
        return text
    sampled, greedy = by_key[policy].win[judge].bootstrap, by_key[f"{policy}_greedy"].win[judge].bootstrap
    if sampled.low > 0.5 and greedy.low <= 0.5:
        text += f" {title_of(policy)} shows no gain beyond what this decoding gives for free."
    return text


def _over_optimised(by_key: dict[str, PolicyRow], policy: str, judges: Sequence[str]) -> str:
    if set(judges) != {GOLD, REWARD_MODEL}:
        return ""
    win = by_key[policy].win
    if win[REWARD_MODEL].bootstrap.low > 0.5 and win[GOLD].bootstrap.high < 0.5:
        return f"Over-optimised: the reward model prefers {title_of(policy)} to SFT while the gold labeler prefers SFT."
    return ""


def _blame(by_key: dict[str, PolicyRow], policy: str, judge: str) -> str:
    picks = [row for row in by_key.values() if row.decoding.startswith("best_of_")]
    if not picks:
        return ""
    best = max(picks, key=lambda row: row.win[judge].rate)
    pick, trained = best.win[judge].bootstrap, by_key[policy].win[judge].bootstrap
    figures = f"({best.title}: {percent_interval(pick)}; {title_of(policy)}: {percent_interval(trained)})"
    if trained.low > 0.5:
        return ""
    if pick.low > 0.5:
        return f"Best-of-n with the same reward model beats SFT and {title_of(policy)} does not {figures}: look at PPO."
    return f"Neither best-of-n nor {title_of(policy)} beats SFT {figures}: look at the reward model."


def _toxicity(by_key: dict[str, PolicyRow], policy: str) -> str:
    change = by_key[policy].toxicity_change_vs_sft
    if change is None or not change.excludes_zero:
        return ""
    direction = "rises" if change.low > 0 else "falls"
    return f"Toxicity on bait prompts {direction} by {points(change)} points against SFT."
