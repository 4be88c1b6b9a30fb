"""What takes the meaning from a sweep's figures, told before its verdict: too few prompts, a strong base model, points that
did not move, and that the best point was chosen by the judge whose figure is shown."""

from collections.abc import Mapping, Sequence

from flows.sweep.record import SweptPoint
from tasks.results.verdict import ENOUGH, NO_KL


def has_moved(metrics: Mapping[str, float], judge: str) -> bool:
    """Whether PPO changed anything: a KL to its start, and a win rate against it whose interval leaves out one half."""
    low, high = (metrics.get(f"policy/win_rate_vs_start_{judge}_{end}") for end in ("low", "high"))
    level = low is not None and high is not None and low <= 0.5 <= high
    return metrics.get("policy/kl", NO_KL) >= NO_KL and not level


def caveats(finished: Sequence[SweptPoint], judge: str) -> list[str]:
    """One sentence each, those that weigh most first."""
    found = []
    prompts = min((point.metrics.get("policy/test_prompts", ENOUGH) for point in finished), default=ENOUGH)
    if prompts < ENOUGH:
        found.append(f"Too few prompts ({prompts:.0f}, fewer than {ENOUGH}) to conclude anything.")
    if any(point.metrics.get(f"policy/win_rate_of_base_{judge}_low", 0.0) > 0.5 for point in finished):
        found.append("The base model, before any tuning, beats SFT, so beating SFT shows little.")
    if any(point.metrics.get(f"policy/win_rate_of_prompted_{judge}_low", 0.0) > 0.5 for point in finished):
        found.append("The base model behind examples, without any tuning, beats SFT, so beating SFT shows little.")
    still = [point.number for point in finished if not has_moved(point.metrics, judge)]
    if still:
        names = ", ".join(f"#{number}" for number in still)
        found.append(f"PPO has not moved at {names}: what stands there is its start's doing.")
    return found


def chosen_by_its_judge(finished: Sequence[SweptPoint], best: int | None) -> list[str]:
    """The highest of several noisy figures lies above its own mean."""
    if best is None or len(finished) < 2:
        return []
    return [
        f"The best of {len(finished)} points was chosen by the same judge and prompts that its figure comes from, so that figure "
        "is too good; another seed of the evaluation or another judge tells by how much."
    ]
