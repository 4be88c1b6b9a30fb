"""How often those who judged the same pairs agree: people with each other, and a judge with people.

A label is 1 (the first of two responses is better), 0 (a tie) or -1 (the second is), always in one direction.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from tasks.results.win_rate import Floats, Interval, Resampling, percentile_interval

Labels = Mapping[str, int]
"""What each annotator said of one item."""


class Agreement(NamedTuple):
    """Agreement over all pairs of annotators that judged the same item."""

    items: int
    """Items with at least two labels."""
    comparisons: int
    """Pairs of labels of the same item."""
    exact: Interval | None
    """Share of them that are equal, ties included; the interval is a bootstrap over items."""
    decisive_comparisons: int
    """Pairs of labels of which neither is a tie."""
    decisive: Interval | None
    """Share of these that are equal."""
    alpha: float | None
    """Krippendorff's alpha for nominal labels: 1 perfect, 0 what chance gives; None without any variation."""


def between_annotators(items: Sequence[Labels], how: Resampling) -> Agreement:
    """Agreement of people with each other."""
    shared = [list(labels.values()) for labels in items if len(labels) > 1]
    return _agreement([list(combinations(labels, 2)) for labels in shared], how, krippendorff_alpha(shared))


def with_annotators(verdicts: Sequence[float | None], items: Sequence[Labels], how: Resampling) -> Agreement:
    """Agreement of one judge with each person; ``verdicts``: an item's verdict (its sign counts), None without one."""
    said = [
        [(int(np.sign(verdict)), label) for label in labels.values()]
        for verdict, labels in zip(verdicts, items, strict=True)
        if verdict is not None and labels
    ]
    return _agreement(said, how, krippendorff_alpha([pair for rows in said for pair in rows]))


def with_majority(verdicts: Sequence[float | None], items: Sequence[Labels], how: Resampling) -> Agreement:
    """Agreement of one judge with the majority of people; items without a majority are left out."""
    said = []
    for verdict, labels in zip(verdicts, items, strict=True):
        winner = majority(list(labels.values()))
        if verdict is not None and winner is not None:
            said.append([(int(np.sign(verdict)), winner)])
    return _agreement(said, how, krippendorff_alpha([pair for rows in said for pair in rows]))


def majority(labels: Sequence[int]) -> int | None:
    """The label that more people gave than any other; None when two lead, or there is none."""
    ranked = Counter(labels).most_common(2)
    if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


def krippendorff_alpha(items: Sequence[Sequence[int]]) -> float | None:
    """Nominal alpha over items with at least two labels each: 1 - observed / expected disagreement.

    Source: Krippendorff 2011, Computing Krippendorff's alpha-reliability. None when fewer than two different labels occur.
    """
    coincidences: dict[tuple[int, int], float] = defaultdict(float)
    for labels in items:
        for first, second in combinations(labels, 2):
            weight = 1 / (len(labels) - 1)
            coincidences[first, second] += weight
            coincidences[second, first] += weight
    totals: dict[int, float] = defaultdict(float)
    for (first, _), weight in coincidences.items():
        totals[first] += weight
    count = sum(totals.values())
    expected = count * count - sum(total * total for total in totals.values())
    if expected <= 0:
        return None
    observed = sum(weight for (first, second), weight in coincidences.items() if first != second)
    return 1 - (count - 1) * observed / expected


def _agreement(items: Sequence[Sequence[tuple[int, int]]], how: Resampling, alpha: float | None) -> Agreement:
    equal = np.array([sum(a == b for a, b in pairs) for pairs in items], dtype=np.float64)
    sizes = np.array([len(pairs) for pairs in items], dtype=np.float64)
    firm = [[(a, b) for a, b in pairs if a and b] for pairs in items]
    firm_equal = np.array([sum(a == b for a, b in pairs) for pairs in firm], dtype=np.float64)
    firm_sizes = np.array([len(pairs) for pairs in firm], dtype=np.float64)
    return Agreement(
        items=len(items),
        comparisons=int(sizes.sum()),
        exact=_share(equal, sizes, how),
        decisive_comparisons=int(firm_sizes.sum()),
        decisive=_share(firm_equal, firm_sizes, how),
        alpha=alpha,
    )


def _share(hits: Floats, sizes: Floats, how: Resampling) -> Interval | None:
    """Pooled share ``sum(hits) / sum(sizes)``; items are resampled, because labels of one item hang together."""
    hits, sizes = hits[sizes > 0], sizes[sizes > 0]
    if not len(sizes):
        return None
    rows = np.random.default_rng(how.seed).integers(0, len(sizes), size=(how.samples, len(sizes)))
    replicates = hits[rows].sum(axis=1) / sizes[rows].sum(axis=1)
    return percentile_interval(float(hits.sum() / sizes.sum()), replicates, how.confidence)
