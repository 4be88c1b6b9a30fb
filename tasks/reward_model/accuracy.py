"""How often the reward model orders a pair as the labeler did, and where it fails.

All functions take comparisons with the scores of their completions, so they serve any split and any scorer.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import torch

from tasks.records.rankings import ordered_pairs
from tasks.records.records import Comparison
from tasks.reward_model.calibrate import calibration

Scores = Sequence[Sequence[float]]


class ScoredPair(NamedTuple):
    """One pair of completions that the labeler ordered strictly."""

    margin: float
    """Score of the preferred completion minus score of the other."""
    words_gap: int
    """How many words longer the preferred completion is."""
    labeler_id: str
    kind: str


def scored_pairs(comparisons: Sequence[Comparison], scores: Scores) -> list[ScoredPair]:
    """Every strictly ordered pair; ties are dropped as in training. ``scores[i][k]`` belongs to completion k of
    comparison i."""
    pairs = []
    for comparison, row in zip(comparisons, scores, strict=True):
        words = [len(text.split()) for text in comparison.completions]
        for winner, loser in ordered_pairs(comparison.ranks):
            pairs.append(
                ScoredPair(
                    margin=row[winner] - row[loser],
                    words_gap=words[winner] - words[loser],
                    labeler_id=comparison.labeler_id,
                    kind=comparison.prompt.kind,
                )
            )
    return pairs


def pair_accuracy(pairs: Iterable[ScoredPair]) -> float:
    """Fraction of pairs with r_winner > r_loser; equal scores count as wrong. NaN without pairs.

    Source: InstructGPT section 4.1 (72.4 % on trained-on labelers, 69.6 % on held-out ones).
    """
    margins = [pair.margin for pair in pairs]
    return sum(margin > 0 for margin in margins) / len(margins) if margins else math.nan


def accuracy_report(comparisons: Sequence[Comparison], scores: Scores, bins: int = 10) -> dict[str, Any]:
    """Accuracy and calibration of one split as plain JSON types.

    Keys: ``pairs``, ``accuracy``, ``ece``, ``brier``, ``log_loss`` (None without pairs); ``by_labeler``, ``by_kind`` and
    ``by_longer`` map a name to ``{pairs, accuracy}``; ``by_confidence`` and ``by_length_gap`` list equal-count bins
    from low to high; ``ties`` says how the pairs fare that the labeler tied.
    """
    pairs = scored_pairs(comparisons, scores)
    report: dict[str, Any] = {"prompts": len(comparisons), "pairs": len(pairs)}
    if not pairs:
        return (
            report
            | {"accuracy": None, "ece": None, "brier": None, "log_loss": None}
            | {"by_labeler": {}, "by_kind": {}, "by_longer": {}, "by_confidence": [], "by_length_gap": [], "ties": None}
        )
    margins = torch.tensor([pair.margin for pair in pairs], dtype=torch.float64)
    measured = calibration(margins, torch.ones_like(margins), edges=None, bins=bins)
    return report | {
        "accuracy": measured.accuracy,
        "ece": measured.expected_calibration_error,
        "brier": measured.brier,
        "log_loss": measured.log_loss,
        "by_labeler": _grouped(pairs, lambda pair: pair.labeler_id),
        "by_kind": _grouped(pairs, lambda pair: pair.kind),
        "by_longer": _grouped(pairs, _longer),
        "by_confidence": _binned(pairs, lambda pair: 1 / (1 + math.exp(-min(abs(pair.margin), 700.0))), bins),
        "by_length_gap": _binned(pairs, lambda pair: float(pair.words_gap), bins),
        "ties": tie_report([abs(pair.margin) for pair in pairs], tied_margins(comparisons, scores)),
    }


def _longer(pair: ScoredPair) -> str:
    """Which completion has more words: a reward model that likes length orders one kind of pair well and the other badly."""
    if pair.words_gap == 0:
        return "neither"
    return "preferred" if pair.words_gap > 0 else "other"


def tied_margins(comparisons: Sequence[Comparison], scores: Scores) -> list[float]:
    """Distance of the scores in every pair that the labeler tied."""
    return [
        abs(row[first] - row[second])
        for comparison, row in zip(comparisons, scores, strict=True)
        for first, second in combinations(range(len(row)), 2)
        if comparison.ranks[first] == comparison.ranks[second]
    ]


def tie_report(ordered: Sequence[float], tied: Sequence[float]) -> dict[str, float] | None:
    """Whether completions that the labeler tied lie closer together than those that he ordered; None without ties.

    ``discrimination`` is the probability that an ordered pair's scores lie further apart than a tied pair's, equal distances
    counting one half: 0.5 where the reward model knows nothing of ties (the area under the ROC curve; Mann and Whitney 1947).
    """
    if not ordered or not tied:
        return None
    values = torch.tensor([*tied, *ordered], dtype=torch.float64)
    _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    mean_rank = count.cumsum(0).double() - (count.double() - 1) / 2  # of equal values
    above = float(mean_rank[place[len(tied) :]].sum()) - len(ordered) * (len(ordered) + 1) / 2
    return {
        "pairs": len(tied),
        "mean_distance": math.fsum(tied) / len(tied),
        "mean_distance_of_ordered": math.fsum(ordered) / len(ordered),
        "discrimination": above / (len(tied) * len(ordered)),
    }


def _grouped(pairs: Sequence[ScoredPair], name_of: Callable[[ScoredPair], str]) -> dict[str, dict[str, float]]:
    groups: dict[str, list[ScoredPair]] = {}
    for pair in pairs:
        groups.setdefault(name_of(pair), []).append(pair)
    return {
        name: {"pairs": len(members), "accuracy": pair_accuracy(members)} for name, members in sorted(groups.items())
    }


def _binned(pairs: Sequence[ScoredPair], value_of: Callable[[ScoredPair], float], bins: int) -> list[dict[str, float]]:
    """Equal-count bins over a value, each with its mean value, its accuracy and its size."""
    values = torch.tensor([value_of(pair) for pair in pairs], dtype=torch.float64)
    rows = []
    for members in torch.tensor_split(torch.argsort(values, stable=True), bins):
        chosen = [pairs[index] for index in members.tolist()]
        if chosen:
            mean = float(values[members].mean())
            rows.append({"mean": mean, "accuracy": pair_accuracy(chosen), "pairs": len(chosen)})
    return rows
