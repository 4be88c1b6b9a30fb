"""Win rates: ties count one half, every rate has an interval.

Source: InstructGPT section 4 (95 % intervals, a common SFT opponent); Wilson 1927; percentile bootstrap over prompts.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tasks.engine.errors import DataError
from tasks.language.seeds import derived_seed

Floats = NDArray[np.float64]
FEWEST_CLUSTERS = 10
"""With fewer owners of prompts an interval over owners covers less than it claims to."""


class Interval(BaseModel):
    """An estimate with the ends of its confidence interval, all in one unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


class WinRate(BaseModel):
    """How often one policy's response is preferred to another's on the same prompt, as shares in [0, 1]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: float
    """Share of prompts won, a tie counting one half."""
    prompts: int
    wins: int
    ties: int
    losses: int
    bootstrap: Interval
    """Percentile bootstrap over prompts; the interval that is printed."""
    wilson: Interval
    """Wilson score interval of the rate as if it were a share of wins: wide when ties are many."""
    normal: Interval
    """Normal approximation with the variance of 1, 1/2 and 0; the paper's +- style."""
    clustered: Interval | None = None
    """Bootstrap that draws whole owners of prompts; None where every owner has one prompt, or there are too few owners."""


class Resampling(NamedTuple):
    """How an interval is found: a seeded bootstrap."""

    confidence: float
    samples: int
    seed: int

    def named(self, *names: str | int) -> "Resampling":
        """The same with a seed of its own, so that adding an interval never moves another."""
        return self._replace(seed=derived_seed(self.seed, *names))


def score_outcomes(scores: Sequence[float], opponent_scores: Sequence[float], tie_margin: float) -> Floats:
    """1 where ``scores`` wins, 1/2 where the two differ by at most ``tie_margin``, 0 where it loses; shape
    (prompts,).
    """
    if len(scores) != len(opponent_scores):
        raise DataError(f"win rate: {len(scores)} responses against {len(opponent_scores)}; compare the same prompts")
    gap = np.asarray(scores, dtype=np.float64) - np.asarray(opponent_scores, dtype=np.float64)
    if not np.isfinite(gap).all():
        raise DataError(
            f"win rate: {int((~np.isfinite(gap)).sum())} scores are not finite; a judge must score every pair"
        )
    return np.where(np.abs(gap) <= tie_margin, 0.5, (gap > 0).astype(np.float64))


def win_rate(outcomes: Floats, how: Resampling, owners: Sequence[str] = ()) -> WinRate:
    """Win rate of ``outcomes`` (prompts,) in [0, 1] with its intervals; one value a prompt (average several first).

    ``owners`` names who wrote each prompt, where that is known.
    """
    mean = float(outcomes.mean())
    return WinRate(
        rate=mean,
        prompts=len(outcomes),
        wins=int(np.count_nonzero(outcomes > 0.5)),
        ties=int(np.count_nonzero(outcomes == 0.5)),
        losses=int(np.count_nonzero(outcomes < 0.5)),
        bootstrap=bootstrap_mean(outcomes, how),
        wilson=wilson(mean, len(outcomes), how.confidence),
        normal=normal(outcomes, how.confidence),
        clustered=clustered_mean(outcomes, owners, how.named("owners")) if len(owners) else None,
    )


def wilson(rate: float, n: int, confidence: float) -> Interval:
    """Wilson score interval of a share ``rate`` of ``n`` trials."""
    z = z_value(confidence)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return Interval(estimate=rate, low=max(0.0, centre - half), high=min(1.0, centre + half))


def normal(values: Floats, confidence: float) -> Interval:
    """Mean +- z * sqrt(population variance / n)."""
    mean, half = float(values.mean()), z_value(confidence) * float(values.std()) / math.sqrt(len(values))
    return Interval(estimate=mean, low=mean - half, high=mean + half)


def bootstrap_mean(values: Floats, how: Resampling) -> Interval:
    """Percentile bootstrap interval of the mean of ``values`` (items,)."""
    replicates = bootstrap_replicates(values, how)
    return percentile_interval(float(values.mean()), replicates, how.confidence)


def clustered_mean(values: Floats, clusters: Sequence[str], how: Resampling) -> Interval | None:
    """Percentile bootstrap of the mean of ``values`` (items,) that draws whole clusters: items of one are not independent.

    None where no two items share a cluster, and with fewer than ``FEWEST_CLUSTERS``, where such intervals are too narrow.

    Source: Field and Welsh 2007 (the cluster bootstrap); Cameron, Gelbach and Miller 2008 (few clusters); Miller 2024, "Adding
    Error Bars to Evals", on questions that come in groups.
    """
    names, member = np.unique(np.asarray(clusters), return_inverse=True)
    count = len(names)
    if count == len(values) or count < FEWEST_CLUSTERS:
        return None
    sums, sizes = np.bincount(member, weights=values), np.bincount(member).astype(np.float64)
    rng, block = np.random.default_rng(how.seed), max(1, 4_000_000 // count)
    replicates = []
    for start in range(0, how.samples, block):
        drawn = rng.integers(0, count, size=(min(block, how.samples - start), count))
        replicates.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return percentile_interval(float(values.mean()), np.concatenate(replicates), how.confidence)


def bootstrap_replicates(values: Floats, how: Resampling) -> Floats:
    """Means of resamples with replacement; shape (samples,). Holds a block of the index matrix at a time."""
    count = len(values)
    if count == 0:
        raise DataError("bootstrap: no values; at least one item is needed")
    rng = np.random.default_rng(how.seed)
    block = max(1, 4_000_000 // count)
    means = [
        values[rng.integers(0, count, size=(min(block, how.samples - start), count))].mean(axis=1)
        for start in range(0, how.samples, block)
    ]
    return np.concatenate(means)


def percentile_interval(estimate: float, replicates: Floats, confidence: float) -> Interval:
    """The central ``confidence`` share of bootstrap ``replicates``."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return Interval(estimate=estimate, low=float(low), high=float(high))


def z_value(confidence: float) -> float:
    """Two-sided standard normal quantile: 1.96 for 0.95."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)
