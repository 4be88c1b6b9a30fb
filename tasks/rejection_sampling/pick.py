"""Which of the responses to each prompt is learned from."""

import random
from collections.abc import Sequence
from typing import NamedTuple


class Candidate(NamedTuple):
    """One response that could be learned from."""

    text: str
    score: float
    """By the reward model."""
    usable: bool
    """It ended by itself and holds something: a response that was cut off would teach a wrong end."""


def pick_best(candidates: Sequence[Candidate]) -> Candidate | None:
    """The usable candidate with the highest score, the earliest of equals; None when none is usable."""
    usable = [candidate for candidate in candidates if candidate.usable]
    return max(usable, key=lambda candidate: candidate.score, default=None)


def pick_by_lot(candidates: Sequence[Candidate], lots: random.Random) -> Candidate | None:
    """Any usable candidate, each as likely as another; None when none is usable.

    The control of rejection sampling: as many prompts and responses by the same policy, without the reward model's
    choice. What it gains is what training on one's own samples gains by itself.
    """
    usable = [candidate for candidate in candidates if candidate.usable]
    return lots.choice(usable) if usable else None
