"""How far runs lie apart, beside the interval that each run gives itself: the first knows seeds, the second only prompts."""

import statistics
from typing import NamedTuple

from flows.study.results import Results

WIN = "policy/win_rate_gold"


class Spread(NamedTuple):
    """The reference policy's win rate, run by run, in per cent."""

    runs: list[tuple[int, str]]
    """Seed -> rate with its interval over prompts."""
    between: float
    """Standard deviation between runs, in points."""
    within: float
    """Mean half-width of the intervals over prompts, in points."""


def spread_of(results: Results, setting: str) -> Spread | None:
    """None with fewer than two runs: one run tells nothing of others."""
    rates, low, high = (results.metric(setting, f"{WIN}{end}") for end in ("", "_low", "_high"))
    seeds = sorted(rates.keys() & low.keys() & high.keys())
    if len(seeds) < 2:
        return None
    return Spread(
        runs=[(s, f"{100 * rates[s]:.1f} [{100 * low[s]:.1f}, {100 * high[s]:.1f}]") for s in seeds],
        between=100 * statistics.stdev(rates[s] for s in seeds),
        within=100 * statistics.fmean((high[s] - low[s]) / 2 for s in seeds),
    )
