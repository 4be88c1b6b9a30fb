"""How often two labelers order the same pair of responses in the same way.

Defined here once, because published figures leave it open: an *item* is one pair of completions of one prompt; it
counts when both labelers order it strictly; they agree when they order it the same way. A pair that either calls a
tie does not count.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

Ranks = Sequence[int]


class PairCount(NamedTuple):
    """Items on which two rankings could be compared, and on how many they agree."""

    agreeing: int
    counted: int


def count_agreement(first: Ranks, second: Ranks) -> PairCount:
    """Compare two rankings of the same completions, pair by pair; ties in either are left out."""
    agreeing = counted = 0
    for left, right in combinations(range(len(first)), 2):
        order_first = first[left] - first[right]
        order_second = second[left] - second[right]
        if order_first and order_second:
            counted += 1
            agreeing += (order_first > 0) == (order_second > 0)
    return PairCount(agreeing, counted)


class AgreeingShare(NamedTuple):
    """Share of agreeing items with its standard error over pairs of labelers."""

    share: float
    """Agreeing items over counted items, pooled over all pairs of labelers; NaN when nothing could be counted."""
    standard_error: float
    """Standard deviation of the share per pair of labelers over the square root of their number; NaN for a single
    pair."""
    counted: int


def labeler_agreement(rankings: Mapping[str, Mapping[str, Ranks]]) -> AgreeingShare:
    """Agreement among labelers who ranked the same completions.

    Args:
        rankings: ``rankings[labeler_id][prompt_id]`` are the ranks that labeler gave. Two labelers are compared on
            the prompts they share.

    Source: InstructGPT section 3.4 reports 72.6 +- 1.5 % for training labelers and 77.3 +- 1.3 % for held-out ones.
    """
    return _pool(
        _count_shared(rankings[first], rankings[second]) for first, second in combinations(sorted(rankings), 2)
    )


def agreement_with_gold(rankings: Mapping[str, Mapping[str, Ranks]], gold: Mapping[str, Ranks]) -> AgreeingShare:
    """Agreement of each labeler with the gold ranking, pooled; the standard error is over labelers."""
    return _pool(_count_shared(rankings[labeler], gold) for labeler in sorted(rankings))


def ranks_of_scores(scores: Sequence[float]) -> list[int]:
    """Ranks of scores, highest first; equal scores share the better rank (1, 2, 2, 4)."""
    return [1 + sum(other > score for other in scores) for score in scores]


def _count_shared(first: Mapping[str, Ranks], second: Mapping[str, Ranks]) -> PairCount:
    counts = [
        count_agreement(first[prompt_id], second[prompt_id]) for prompt_id in sorted(first.keys() & second.keys())
    ]
    return PairCount(sum(count.agreeing for count in counts), sum(count.counted for count in counts))


def _pool(counts: Iterable[PairCount]) -> AgreeingShare:
    usable = [count for count in counts if count.counted]
    counted = sum(count.counted for count in usable)
    if not counted:
        return AgreeingShare(math.nan, math.nan, 0)
    shares = [count.agreeing / count.counted for count in usable]
    error = math.nan
    if len(shares) > 1:
        mean = sum(shares) / len(shares)
        variance = sum((share - mean) ** 2 for share in shares) / (len(shares) - 1)
        error = math.sqrt(variance / len(shares))
    return AgreeingShare(sum(count.agreeing for count in usable) / counted, error, counted)
