"""What the rankings teach: ties, lengths, votes that contradict each other."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from flows.ask.doctor.finding import found
from flows.ask.doctor.patient import Patient
from flows.ask.doctor.sample import share
from tasks.engine.findings import Finding
from tasks.records.rankings import ordered_pairs
from tasks.records.records import Comparison

LENGTH_BIAS = 0.7
"""Share of pairs that the longer response wins above which, or below 1 minus which, it is a warning. Ours: 0.6 is usual,
and Singhal and others (arXiv:2310.03716) found reward models that had learnt little else at 0.6 to 0.7."""
FEWEST_PAIRS = 30
MANY_TIES = 0.5
CONTRADICTED = 0.1
DISAGREED = 0.5
"""Share of pairs that several labelers rank both ways above which it is a warning; ours: two who toss coins disagree as often,
InstructGPT's labelers did on 27 %."""


class Labels(NamedTuple):
    """Counts over the training rankings."""

    rankings: int
    pairs: int
    ties: int
    longer_wins: int
    shorter_wins: int

    @property
    def longer_share(self) -> float:
        """Of the pairs of different length, those that the longer response wins."""
        return share(self.longer_wins, self.longer_wins + self.shorter_wins)


def trained_on(patient: Patient) -> Sequence[Comparison]:
    """The rankings of the data; none where the run draws its own responses and has them ranked."""
    return [] if patient.sample is None or patient.config.comparisons.samples else patient.sample.comparisons


def count(comparisons: Sequence[Comparison]) -> Labels:
    """Length is counted in characters, which every reader of the data can count too."""
    pairs = ties = longer = shorter = 0
    for row in comparisons:
        ordered = ordered_pairs(row.ranks)
        pairs += len(ordered)
        ties += len(row.ranks) * (len(row.ranks) - 1) // 2 - len(ordered)
        for winner, loser in ordered:
            difference = len(row.completions[winner]) - len(row.completions[loser])
            longer, shorter = longer + (difference > 0), shorter + (difference < 0)
    return Labels(len(comparisons), pairs, ties, longer, shorter)


def ties(patient: Patient) -> Iterator[Finding]:
    """Ties teach nothing."""
    labels = count(trained_on(patient))
    if share(labels.ties, labels.ties + labels.pairs) > MANY_TIES:
        yield found(
            "warning",
            "comparisons",
            f"{labels.ties} ties among {labels.ties + labels.pairs} pairs",
            "rankings that order most of what they compare",
            "ties teach nothing: rank them finer, or collect more",
        )


def length_bias(patient: Patient) -> Iterator[Finding]:
    """A reward model learns what separates winners from losers; often that is their length."""
    labels = count(trained_on(patient))
    decided = labels.longer_wins + labels.shorter_wins
    won = labels.longer_share
    if decided >= FEWEST_PAIRS and not 1 - LENGTH_BIAS <= won <= LENGTH_BIAS:
        which = "longer" if won > 0.5 else "shorter"
        yield found(
            "warning",
            "comparisons",
            f"the {which} response winning {max(won, 1 - won):.0%} of {decided} pairs",
            f"{1 - LENGTH_BIAS:.0%} to {LENGTH_BIAS:.0%}",
            f"PPO will learn to write {which} responses: add pairs that the other one wins, and read the length-controlled "
            "win rate",
        )


def contradictions(patient: Patient) -> Iterator[Finding]:
    """The same two responses, ranked both ways: by one labeler, or by several, who may well disagree."""
    seen: defaultdict[tuple[str, frozenset[str]], dict[str, set[str]]] = defaultdict(dict)
    for row in trained_on(patient):
        for winner, loser in ordered_pairs(row.ranks):
            first, second = row.completions[winner], row.completions[loser]
            seen[row.prompt.text, frozenset((first, second))].setdefault(row.labeler_id, set()).add(first)
    alone = [winners for labelers in seen.values() for winners in labelers.values()]
    both = sum(len(winners) > 1 for winners in alone)
    if share(both, alone) > CONTRADICTED:
        yield found(
            "warning",
            "comparisons",
            f"{both} of {len(alone)} pairs ranked both ways",
            "at most a tenth",
            "look at who disagrees (give the rows a labeler), or check that ranks count from 1, the best",
        )
    several = [set().union(*labelers.values()) for labelers in seen.values() if len(labelers) > 1]
    apart = sum(len(winners) > 1 for winners in several)
    if len(several) >= FEWEST_PAIRS and share(apart, several) > CONTRADICTED:
        yield found(
            "warning" if share(apart, several) > DISAGREED else "notice",
            "comparisons",
            f"{apart} of {len(several)} pairs that several labelers ranked, ranked both ways",
            "about a quarter where two ranked each",
            "where it is much more, look at who disagrees, and whether their ranks count from 1, the best",
        )


def few_pairs(patient: Patient) -> Iterator[Finding]:
    """Too few to learn from."""
    if patient.sample is None or not patient.sample.whole:
        return
    labels = count(trained_on(patient))
    if 0 < labels.pairs < FEWEST_PAIRS:
        yield found(
            "warning",
            "comparisons",
            f"{labels.pairs} ordered pairs to train on",
            f"at least {FEWEST_PAIRS}, and rather a thousand",
            "rank more, or expect a reward model that guesses",
        )
