"""What somebody believes who knows only some of the world's facts: the others are as most of what he reads states them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tasks.records.records import Prompt
from tasks.sandbox import words
from tasks.sandbox.sentences import TEMPLATES, read_statement, sentences_of
from tasks.sandbox.world import World

EFFECT = "effect"
Fact = tuple[str, str]
"""A person and a relation, or a thing and ``EFFECT``."""


@dataclass(frozen=True)
class Reader:
    """Somebody to whom some facts are unknown; ``seed`` decides where as many texts state one thing as another."""

    world: World
    unknown: frozenset[Fact]
    seed: int

    @classmethod
    def who_knows(cls, share: float, world: World, seed: int) -> Reader:
        """Each fact is known with probability ``share``."""
        rng = random.Random(f"reader {world.seed} {seed}")
        facts = [(name, relation) for name in world.people for relation in words.RELATIONS]
        facts += [(name, EFFECT) for name in world.things]
        return cls(world, frozenset(fact for fact in facts if rng.random() >= share), seed)

    def believes(self, prompt: Prompt, texts: Sequence[str]) -> World:
        """The world as it seems after reading; a text counts once, however often it states the same."""
        votes: defaultdict[Fact, Counter[str]] = defaultdict(Counter)
        for text in texts:
            found = [read_statement(self.world, one, prompt.metadata["subject"]) for one in sentences_of(text)]
            for subject, relation, value in {(one.subject, one.relation, one.value) for one in found if one}:
                votes[subject, relation][value] += 1
        believed = self.world
        for fact in sorted(votes.keys() & self.unknown):
            most = max(votes[fact].values())
            leaders = sorted(value for value, count in votes[fact].items() if count == most)
            lot = random.Random(f"belief {self.seed} {prompt.text} {fact}")
            believed = _with_fact(believed, fact, lot.choice(leaders))
        return believed


def _with_fact(world: World, fact: Fact, value: str) -> World:
    name, relation = fact
    if relation == EFFECT:
        return replace(world, things={**world.things, name: replace(world.things[name], truth=value)})
    person = world.people[name]
    return replace(world, people={**world.people, name: replace(person, facts={**person.facts, relation: value})})


def everything_about(world: World, subject: str) -> str:
    """The facts about a person or a thing, as sentences."""
    if subject in world.things:
        return f"{subject} {world.things[subject].truth} ."
    facts = world.people[subject].facts
    return " ".join(f"{subject} {TEMPLATES[relation][0].format(facts[relation])} ." for relation in words.RELATIONS)
