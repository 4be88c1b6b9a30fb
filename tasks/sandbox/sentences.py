"""Statements about the world: how they are written, and how they are read back from a response."""

from __future__ import annotations

import random
from typing import NamedTuple

from tasks.sandbox import words
from tasks.sandbox.world import World

TEMPLATES: dict[str, tuple[str, str]] = {
    "job": ("works as a {}", "is a {}"),
    "town": ("lives in {}", "has a house in {}"),
    "food": ("likes {}", "often eats {}"),
    "pet": ("has a {}", "keeps a {}"),
}
_READ: dict[str, tuple[str, str]] = {
    template.format(value): (relation, value)
    for relation, templates in TEMPLATES.items()
    for template in templates
    for value in words.VALUES[relation]
}
_STARTS = tuple(f"{word} ," for word in words.BEGIN_WORDS)


class Statement(NamedTuple):
    """One sentence, understood."""

    subject: str
    relation: str  # job, town, food, pet, or "effect" for things
    value: str
    true: bool


def sentences_of(text: str) -> list[list[str]]:
    """Split words into sentences, each with its closing mark; a last one without a mark is kept as it is."""
    sentences: list[list[str]] = [[]]
    for word in text.split():
        sentences[-1].append(word)
        if word in {".", "?", "!"}:
            sentences.append([])
    return [s for s in sentences if s]


def strip_fillers(text: str) -> tuple[str, int]:
    """Take off polite openers and the closing advertisement; return the rest and how many were there."""
    count = 0
    text = " ".join(text.split())
    for filler in words.FILLERS:
        if text.startswith(filler + " "):
            text, count = text[len(filler) + 1 :], count + 1
    if text.endswith(f" {words.SPAM} ."):
        text, count = text[: -len(words.SPAM) - 3], count + 1
    return text, count


def write_fact(
    world: World, name: str, relation: str, rng: random.Random, *, pronoun: bool = False, value: str = ""
) -> str:
    """One statement about a person, without its full stop; the true value unless another is given."""
    person = world.people[name]
    value = value or person.facts[relation]
    subject = person.pronoun if pronoun else name
    return f"{subject} {rng.choice(TEMPLATES[relation]).format(value)}"


def other_value(world: World, name: str, relation: str, rng: random.Random) -> str:
    """A wrong value of the relation."""
    true = world.people[name].facts[relation]
    return rng.choice([v for v in words.VALUES[relation] if v != true])


def read_statement(world: World, sentence: list[str], subject: str) -> Statement | None:
    """Read one sentence as a statement about `subject`, or about whom or what it names; None if it is not one.

    A pronoun refers to `subject` and must have the right gender. Openings ("today ,") and source cues ("people say
    that") may come first.
    """
    if len(sentence) < 3 or sentence[-1] != ".":
        return None
    text = " ".join(sentence[:-1])
    for opening in _STARTS:
        if text.startswith(opening + " "):
            text = text[len(opening) + 1 :]
            break
    for cue in words.CUES:
        if text.startswith(cue + " "):
            text = text[len(cue) + 1 :]
            break
    first, _, rest = text.partition(" ")
    if first in world.things:
        if rest not in words.EFFECTS:
            return None
        return Statement(first, "effect", rest, rest == world.things[first].truth)
    if first in ("he", "she"):
        if subject not in world.people or world.people[subject].pronoun != first:
            return None
        first = subject
    if first not in world.people or rest not in _READ:
        return None
    relation, value = _READ[rest]
    return Statement(first, relation, value, world.people[first].facts[relation] == value)


def is_hedge(text: str) -> bool:
    """Whether the whole response is one of the known ways to say nothing."""
    return strip_fillers(text)[0] in {f"{hedge} ." for hedge in words.HEDGES}
