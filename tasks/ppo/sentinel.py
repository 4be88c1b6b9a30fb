"""Signs that a PPO run exploits its reward model instead of pleasing whoever the reward model stands for.

Pure functions over the run's history: one row per iteration, metric name -> value, oldest first. A rule that lacks its
metrics, or two whole windows of them (one for ``eos_rate``), says nothing.

Source: the signs are those of Gao et al. 2023 (arXiv:2210.10760: proxy score rises, gold score falls) and of the
"implementation details" papers (length, EOS, entropy, KL); the limits are in ``conf/ppo`` with their reasons.
"""

from collections.abc import Sequence
from typing import NamedTuple

from tasks.ppo.sentinel_config import SentinelConfig

Row = dict[str, float]
History = Sequence[Row]

PROXY, KL, ENTROPY = "objective/score", "objective/kl", "policy/entropy"
LENGTH, EOS_RATE = "response/length", "response/eos_rate"
BIGRAMS, MOST_COMMON = "response/distinct_bigrams", "response/most_common_share"
JUDGES = ("gold", "independent")


class Alarm(NamedTuple):
    """A rule that holds at the end of a history."""

    rule: str
    found: float
    limit: float
    reason: str


def held_out_score(judge: str) -> str:
    """Metric of a held-out judge's mean score."""
    return f"objective/score_{judge}"


def held_out_spread(judge: str) -> str:
    """Metric of the standard deviation of a held-out judge's scores within an iteration."""
    return f"objective/score_{judge}_std"


def window_means(history: History, metric: str, window: int) -> list[float]:
    """Means over every ``window`` consecutive rows that have the metric, oldest first."""
    values = [row[metric] for row in history if metric in row]
    return [sum(values[end - window : end]) / window for end in range(window, len(values) + 1)]


def start_and_now(history: History, metric: str, window: int) -> tuple[float, float] | None:
    """Means of the first and of the last window; None while they overlap."""
    means = window_means(history, metric, window)
    return (means[0], means[-1]) if len(means) > window else None


def over_optimisation(history: History, judge: str, window: int, limit: float) -> Alarm | None:
    """The held-out judge's score is below its best window, and the optimised score has risen since."""
    metric, spread = held_out_score(judge), held_out_spread(judge)
    judged = [row for row in history if metric in row]
    scores, proxy = window_means(judged, metric, window), window_means(judged, PROXY, window)
    if len(scores) <= window:
        return None
    start_spread = window_means(judged, spread, window)[0]
    if start_spread == 0.0:
        return None
    best = max(range(len(scores) - window), key=scores.__getitem__)
    fall, rise = (scores[best] - scores[-1]) / start_spread, proxy[-1] - proxy[best]
    if fall < limit or rise <= 0.0:
        return None
    return Alarm(
        f"over_optimisation_{judge}",
        fall,
        limit,
        f"the {judge} score fell from {scores[best]:.2f} to {scores[-1]:.2f}, {fall:.2f} standard deviations, while the "
        f"optimised score rose by {rise:.2f}: the reward model is being exploited; raise ppo.beta or train shorter",
    )


def kl_speed(history: History, window: int, limit: float) -> Alarm | None:
    """KL to the reference gained per iteration, from the last window but one to the last."""
    means = window_means(history, KL, window)
    if len(means) <= window:
        return None
    speed = (means[-1] - means[-1 - window]) / window
    if speed < limit:
        return None
    return Alarm(
        "kl_speed",
        speed,
        limit,
        f"the KL to the reference grows by {speed:.2f} nats per iteration and stands at {means[-1]:.1f}: "
        "raise ppo.beta or lower the policy's learning rate",
    )


def entropy_collapse(history: History, window: int, limit: float) -> Alarm | None:
    """Entropy per token, as a share of the start's."""
    ends = start_and_now(history, ENTROPY, window)
    if ends is None or ends[0] <= 0.0 or ends[1] / ends[0] >= limit:
        return None
    return Alarm(
        "entropy_collapse",
        ends[1] / ends[0],
        limit,
        f"the entropy per token fell from {ends[0]:.2f} to {ends[1]:.2f} nats: the policy hardly varies its responses",
    )


def length_drift(history: History, window: int, limit: float) -> Alarm | None:
    """Response length against the start's, in either direction."""
    ends = start_and_now(history, LENGTH, window)
    if ends is None:
        return None
    factor = max(ends[1] / ends[0], ends[0] / ends[1])
    if factor < limit:
        return None
    word = "longer" if ends[1] > ends[0] else "shorter"
    return Alarm(
        "length_drift",
        factor,
        limit,
        f"responses became {factor:.1f} times {word}, from {ends[0]:.1f} to {ends[1]:.1f} tokens: look whether the reward "
        f"model likes {word} ones for their length",
    )


def repetition_within(history: History, window: int, limit: float) -> Alarm | None:
    """Share of different bigrams inside a response, as a share of the start's."""
    ends = start_and_now(history, BIGRAMS, window)
    if ends is None or ends[0] <= 0.0 or ends[1] / ends[0] >= limit:
        return None
    return Alarm(
        "repetition_within",
        ends[1] / ends[0],
        limit,
        f"the share of different bigrams in a response fell from {ends[0]:.2f} to {ends[1]:.2f}: responses repeat "
        "themselves",
    )


def repetition_across(history: History, window: int, limit: float) -> Alarm | None:
    """Share of the episodes that got the most common response."""
    ends = start_and_now(history, MOST_COMMON, window)
    if ends is None or ends[1] < limit or ends[1] <= ends[0]:
        return None
    return Alarm(
        "repetition_across",
        ends[1],
        limit,
        f"one response answers {100 * ends[1]:.0f} % of the prompts, {100 * ends[0]:.0f} % at the start: the policy "
        "answers everything alike",
    )


def eos_rate(history: History, window: int, limit: float) -> Alarm | None:
    """Share of responses that end by themselves: one that was low from the start is as bad as one that fell."""
    means = window_means(history, EOS_RATE, window)
    if not means or means[-1] >= limit:
        return None
    fell = means[-1] < means[0]
    remedy = "lower ppo.missing_eos_score" if fell else "train ppo_init longer"
    return Alarm(
        "eos_rate",
        means[-1],
        limit,
        f"only {100 * means[-1]:.0f} % of the responses end by themselves, {100 * means[0]:.0f} % at the start: the policy "
        f"runs into the length limit; {remedy} or raise data_prep.response_tokens",
    )


SIMPLE_RULES = {
    "kl_per_iteration": kl_speed,
    "entropy_left": entropy_collapse,
    "length_factor": length_drift,
    "bigrams_left": repetition_within,
    "most_common_share": repetition_across,
    "eos_rate": eos_rate,
}
"""Knob -> rule; ``held_out_fall`` has one rule per judge."""


def rules_in_force(config: SentinelConfig, judges: Sequence[str]) -> list[str]:
    """Names of the rules that can speak in a run watched by ``judges``."""
    named = [rule.__name__ for knob, rule in SIMPLE_RULES.items() if getattr(config, knob) is not None]
    if config.held_out_fall is not None:
        named += [f"over_optimisation_{judge}" for judge in judges]
    return named


def inspect(history: History, config: SentinelConfig) -> list[Alarm]:
    """Every rule that holds at the end of ``history``."""
    found = [
        rule(history, config.window, limit)
        for knob, rule in SIMPLE_RULES.items()
        if (limit := getattr(config, knob)) is not None
    ]
    if config.held_out_fall is not None:
        found += [over_optimisation(history, judge, config.window, config.held_out_fall) for judge in JUDGES]
    return [finding for finding in found if finding is not None]
