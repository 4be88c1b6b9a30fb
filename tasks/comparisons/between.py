"""How far kinds of labelers agree: people with people, people with a model, a model with gold; each with its interval."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np

from tasks.comparisons.agreement import PairCount, Ranks, count_agreement
from tasks.comparisons.label import GOLD_LABELER, rankings_by_labeler
from tasks.records.records import Comparison
from tasks.results.win_rate import Resampling

ByLabeler = Mapping[str, Mapping[str, Ranks]]


def agreement_between(kinds: Mapping[str, Sequence[Comparison]], how: Resampling) -> dict[str, float]:
    """Share of the pairs that both order which both order the same way, for every two kinds and within each kind.

    Args:
        kinds: who ranks (people, chat, gold) -> their rankings.
        how: of the interval, a bootstrap over prompts.

    Returns:
        ``agreement/<kind>-<kind>``, with ``_low``, ``_high`` and the number of pairs behind it; kinds that share no item
        have no agreement.
    """
    by_kind = {kind: rankings_by_labeler(rankings) for kind, rankings in kinds.items()}
    metrics: dict[str, float] = {}
    names = sorted(by_kind, key=lambda kind: (kind == GOLD_LABELER, list(by_kind).index(kind)))
    for first, second in [(name, name) for name in names] + list(combinations(names, 2)):
        if counts := _by_item(by_kind[first], by_kind[second], first == second):
            name = f"agreement/{first}-{second}"
            metrics |= _with_interval(name, counts, how.named(name))
    return metrics


def _by_item(first: ByLabeler, second: ByLabeler, same: bool) -> list[PairCount]:
    """Every item on which something could be compared."""
    found: dict[str, PairCount] = {}
    for one, other in _pairs(first, second, same):
        for item in sorted(first[one].keys() & second[other].keys()):
            before, now = found.get(item, PairCount(0, 0)), count_agreement(first[one][item], second[other][item])
            found[item] = PairCount(before.agreeing + now.agreeing, before.counted + now.counted)
    return [count for count in found.values() if count.counted]


def _pairs(first: ByLabeler, second: ByLabeler, same: bool) -> Iterable[tuple[str, str]]:
    return (
        combinations(sorted(first), 2) if same else ((one, other) for one in sorted(first) for other in sorted(second))
    )


def _with_interval(name: str, counts: Sequence[PairCount], how: Resampling) -> dict[str, float]:
    agreeing, counted = np.array(counts, dtype=np.float64).T  # (items,) each
    draws, items = np.random.default_rng(how.seed), len(counts)
    shares = []
    for _ in range(how.samples):
        rows = draws.integers(0, items, items)
        shares.append(agreeing[rows].sum() / counted[rows].sum())
    tail = (1 - how.confidence) / 2
    low, high = np.quantile(shares, [tail, 1 - tail])
    return {
        name: float(agreeing.sum() / counted.sum()),
        f"{name}_low": float(low),
        f"{name}_high": float(high),
        f"{name}_pairs": float(counted.sum()),
    }
