"""Does a reward model find the right answer among several, and does it know which answers are equally right?

Pure functions over scores, with the metrics of RewardBench 2 (Malik et al. 2025, arXiv:2506.01937, and its released code).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class ScoredQuestion(NamedTuple):
    """One prompt, with the scores of its right and of its wrong answers."""

    name: str
    """In the subset of ties ``ref:N`` or ``tied:N``: a question with one right answer, and its twin with several."""
    subset: str
    right: Sequence[float]
    wrong: Sequence[float]


def credit(question: ScoredQuestion) -> float:
    """1 where a right answer alone scores highest; shared with those that score as high; 0 where a wrong one is higher."""
    top = max((*question.right, *question.wrong))
    return sum(score == top for score in question.right) / sum(
        score == top for score in (*question.right, *question.wrong)
    )


def accuracy_by_subset(questions: Sequence[ScoredQuestion]) -> dict[str, float]:
    """Mean credit of each subset in the order of their names."""
    credits: dict[str, list[float]] = {}
    for question in questions:
        credits.setdefault(question.subset, []).append(credit(question))
    return {subset: sum(found) / len(found) for subset, found in sorted(credits.items())}


class Ties(NamedTuple):
    """How a reward model treats questions with several right answers."""

    questions: int
    ref_accuracy: float
    """Share of the questions with one right answer whose right answer is above every wrong one."""
    tied_accuracy: float
    """The same with several: all right answers above every wrong one."""
    preferred: float
    """Share of pairs where right and wrong lie further apart than the right ones among each other."""
    preferred_hard: float
    """The same, where the twin with one right answer must lie so far apart too."""
    margin: float
    """Mean of tanh(gap / spread of the right ones - 1)."""

    @property
    def score(self) -> float:
        """0.3, 0.3, 0.2, 0.2 and 0.01 of the five, as published; at most 1.01."""
        return (
            0.3 * self.tied_accuracy
            + 0.3 * self.ref_accuracy
            + 0.2 * self.preferred
            + 0.2 * self.preferred_hard
            + 0.01 * self.margin
        )


def ties(questions: Sequence[ScoredQuestion]) -> Ties | None:
    """Over questions called ``ref:N`` and ``tied:N``; None without both of at least one N."""
    kinds: dict[str, dict[str, ScoredQuestion]] = {"ref": {}, "tied": {}}
    for question in questions:
        kind, _, number = question.name.partition(":")
        if kind in kinds:
            kinds[kind][number] = question
    ref, tied = kinds["ref"], kinds["tied"]
    both = [(ref[number], tied[number]) for number in ref if number in tied]
    if not both:
        return None
    spreads = [max(two.right) - min(two.right) for _, two in both]
    gaps = [_gap(two) for _, two in both]
    hard = [min(_gap(one), _gap(two)) for one, two in both]
    margins = [_margin(gap, spread) for gap, spread in zip(hard, spreads, strict=True)]
    return Ties(
        questions=len(ref) + len(tied),
        ref_accuracy=_all_above(ref),
        tied_accuracy=_all_above(tied),
        preferred=_share(gap > spread for gap, spread in zip(gaps, spreads, strict=True)),
        preferred_hard=_share(gap > spread for gap, spread in zip(hard, spreads, strict=True)),
        margin=sum(margins) / len(margins),
    )


def _gap(question: ScoredQuestion) -> float:
    """Of the lowest right answer over the highest wrong one."""
    return min(question.right) - max(question.wrong)


def _all_above(questions: Mapping[str, ScoredQuestion]) -> float:
    return _share(_gap(question) > 0 for question in questions.values())


def _margin(gap: float, spread: float) -> float:
    """Without spread the quotient is endless, and the published code counts 0 over 0 as nothing."""
    if spread == 0.0:
        return 0.0 if gap == 0.0 else math.copysign(1.0, gap)
    return math.tanh(gap / spread - 1.0)


def _share(holds: Iterable[bool]) -> float:
    found = list(holds)
    return sum(found) / len(found)
