"""From numbers per seed to a verdict: intervals, claims, and what a finding's claims say together.

Nothing here knows which finding it decides. A finding states beforehand which number must lie above or below which
threshold; the interval over seeds decides.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import t as student

from tasks.engine.errors import DataError
from tasks.results.win_rate import Floats, Interval

PerSeed = Mapping[int, float]
Side = Literal["above", "below"]
Judgement = Literal["holds", "contradicted", "open", "not measured"]
Status = Literal["reproduced", "not reproduced", "unclear", "not measured"]


def seed_interval(values: Sequence[float], confidence: float) -> Interval:
    """Mean over seeds with Student's t interval; a single seed has an infinite one.

    Raises:
        DataError: no value.
    """
    if not values:
        raise DataError("interval over seeds: found no value, expected at least one")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Interval(estimate=mean, low=-math.inf, high=math.inf)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = float(student.ppf((1 + confidence) / 2, len(values) - 1)) * math.sqrt(variance / len(values))
    return Interval(estimate=mean, low=mean - half, high=mean + half)


def difference(first: PerSeed, second: PerSeed) -> dict[int, float]:
    """``first - second`` seed by seed: both share world, base model and reward model, which the difference removes."""
    return {seed: first[seed] - second[seed] for seed in first if seed in second}


class Claim(NamedTuple):
    """One number that a published finding says something about."""

    text: str
    """What the number is."""
    values: PerSeed
    side: Side
    threshold: float
    scale: float = 1.0
    """Factor for showing it; 100 turns shares into points."""
    unit: str = ""
    digits: int = 2
    """Decimals shown."""


class Judged(NamedTuple):
    """A claim and what its interval says."""

    claim: Claim
    interval: Interval | None
    """None without a value."""
    judgement: Judgement


def judge(claim: Claim, *, confidence: float, fewest_seeds: int) -> Judged:
    """``holds`` when the whole interval lies beyond the threshold, ``contradicted`` when none of it does, else open."""
    values = [value for _, value in sorted(claim.values.items())]
    interval = seed_interval(values, confidence) if values else None
    if interval is None or len(values) < fewest_seeds:
        return Judged(claim, interval, "not measured")
    if claim.side == "above":
        holds, contradicted = interval.low > claim.threshold, interval.high <= claim.threshold
    else:
        holds, contradicted = interval.high < claim.threshold, interval.low >= claim.threshold
    return Judged(claim, interval, "holds" if holds else "contradicted" if contradicted else "open")


def verdict(judged: Sequence[Judged]) -> Status:
    """All claims hold: reproduced. One is contradicted: not reproduced. Else unclear, or not measured where one is not."""
    found = {item.judgement for item in judged}
    if "contradicted" in found:
        return "not reproduced"
    if "not measured" in found or not judged:
        return "not measured"
    return "unclear" if "open" in found else "reproduced"


class TurningPoint(NamedTuple):
    """What happened after the gold score's highest point."""

    gold: float
    """Gold score at the end minus gold score at the turn."""
    proxy: float
    """The same for the score that was optimised."""
    place: float
    """Where the turn is, as a share of the run."""


def turn_of(gold: Sequence[float], proxy: Sequence[float], window: int) -> TurningPoint:
    """Find the turning point on one half of the iterations and measure what follows it on the other.

    The highest of several noisy values lies above its own mean, so a fall measured on the values that chose the peak is
    found even in a curve that only rises. Here windows of ``window`` odd iterations choose the place, and the even ones
    are measured at that place and in the last window.

    Raises:
        DataError: fewer than two windows.
    """
    windows = len(gold) // (2 * window)
    if len(gold) != len(proxy) or windows < 2:
        raise DataError(
            f"turning point: found {len(gold)} gold and {len(proxy)} proxy scores, expected equally many and at least "
            f"{4 * window} for windows of {window}"
        )
    used = slice(len(gold) - windows * 2 * window, None)  # the start may lose a few; the end is the end

    def halves(values: Sequence[float]) -> tuple[Floats, Floats]:
        grouped = np.asarray(values, dtype=np.float64)[used].reshape(windows, window, 2).mean(axis=1)
        return grouped[:, 0], grouped[:, 1]

    choosing, gold_after = halves(gold)
    _, proxy_after = halves(proxy)
    top = int(np.argmax(choosing))
    return TurningPoint(
        gold=float(gold_after[-1] - gold_after[top]),
        proxy=float(proxy_after[-1] - proxy_after[top]),
        place=(top + 1) / windows,
    )


def lowest_by_others(curves: Mapping[int, Sequence[float]]) -> dict[int, int]:
    """For each seed, the index at which the mean of the *other* seeds' curves is lowest; empty with fewer than two.

    A curve's own minimum lies below whatever follows it by construction; another seed's does not.
    """
    places = {}
    for seed in curves:
        others = [np.asarray(curve) for other, curve in curves.items() if other != seed]
        if others:
            places[seed] = int(np.argmin(np.mean(others, axis=0)))
    return places
