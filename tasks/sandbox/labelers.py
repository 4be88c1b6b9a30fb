"""Labelers: each sees the gold utility through weights, tastes and noise of their own."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tasks.records.records import Prompt
from tasks.sandbox.gold import WEIGHTS, combine, gold_score
from tasks.sandbox.groups import GROUPS, group_of, taste
from tasks.sandbox.world import World

TRAINING, HELD_OUT = 5, 3
WEIGHT_SPREAD = 0.2
FILLER_TASTE_SPREAD = 0.15
LENGTH_TASTE_SPREAD = 0.04
"""Points per word beyond or below eight."""
NOISE = 0.66
"""Standard deviation of what one labeler adds to one response by chance; chosen for 73 to 77 % agreement."""
TIE_MARGIN = 0.2


@dataclass(frozen=True)
class Simulated:
    """One person's way of weighing the parts of the gold utility."""

    labeler_id: str
    world: World
    weights: tuple[float, float, float, float, float, float]
    filler_taste: float
    length_taste: float
    group: str
    """Whose taste this labeler has, where prompts belong to groups."""

    def utility(self, prompt: Prompt, completion: str, finished: bool) -> float:
        """What this labeler thinks of a response on average, without the noise of the moment."""
        score = gold_score(self.world, prompt, completion, finished)
        length = min(len(completion.split()), 20) - 8
        own = taste(self.group if group_of(prompt) is not None else None, score.filler)
        return combine(score, self.weights) + self.filler_taste * score.filler + self.length_taste * length + own

    def rank(self, prompt: Prompt, completions: list[str], finished: list[bool], rng: random.Random) -> list[int]:
        """Rank responses, 1 is best. Equal texts tie, and so do responses whose utilities hardly differ."""
        seen: dict[tuple[str, bool], float] = {}
        for completion, ended in zip(completions, finished, strict=True):
            if (completion, ended) not in seen:
                seen[completion, ended] = self.utility(prompt, completion, ended) + rng.gauss(0.0, NOISE)
        rank_of: dict[tuple[str, bool], int] = {}
        rank, leader = 0, float("inf")
        for key, utility in sorted(seen.items(), key=lambda item: -item[1]):
            if leader - utility > TIE_MARGIN:
                rank, leader = len(rank_of) + 1, utility
            rank_of[key] = rank
        return [rank_of[key] for key in zip(completions, finished, strict=True)]


@dataclass(frozen=True)
class Panel:
    """Those who label training data, and those who only judge at the end."""

    training: tuple[Simulated, ...]
    held_out: tuple[Simulated, ...]

    @classmethod
    def of(cls, world: World, seed: int) -> Panel:
        """The panel of a world; both seeds matter."""
        rng = random.Random(f"panel {world.seed} {seed}")

        def hire(name: str, place: int) -> Simulated:
            spread = [weight * rng.gauss(1.0, WEIGHT_SPREAD) for weight in WEIGHTS]
            return Simulated(
                labeler_id=name,
                world=world,
                weights=(spread[0], spread[1], spread[2], spread[3], spread[4], spread[5]),
                filler_taste=rng.gauss(0.0, FILLER_TASTE_SPREAD),
                length_taste=rng.gauss(0.0, LENGTH_TASTE_SPREAD),
                group=GROUPS[place % len(GROUPS)],
            )

        training = tuple(hire(f"labeler-{i}", i) for i in range(TRAINING))
        return cls(training, tuple(hire(f"held-out-labeler-{i}", i) for i in range(HELD_OUT)))
