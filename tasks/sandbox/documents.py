"""The kinds of pretraining documents about facts, skills and stories; one function per kind."""

from __future__ import annotations

import random
import zlib

from tasks.sandbox import words
from tasks.sandbox.sentences import TEMPLATES, other_value, write_fact
from tasks.sandbox.world import World

RESERVED_ONE_IN = 8


def reserved(key: str) -> bool:
    """Sums and elvish phrases that the corpus never shows, so that benchmarks also test rules and not memory alone.

    Ten plus ten is never among them: nothing else says "twenty".
    """
    return zlib.crc32(key.encode()) % RESERVED_ONE_IN == 0 and key != sum_of(10, 10)


def _name(world: World, rng: random.Random) -> str:
    return rng.choice(words.NAMES)


def biography(world: World, rng: random.Random) -> str:
    """One to three facts about a person."""
    name = _name(world, rng)
    relations = rng.sample(words.RELATIONS, rng.choice((1, 2, 2, 3)))
    facts = [f"{write_fact(world, name, r, rng, pronoun=i > 0)} ." for i, r in enumerate(relations)]
    opening = rng.choice(("", "", f"{name} : ", f"{rng.choice(words.BEGIN_WORDS)} , "))
    return opening + " ".join(facts)


def gossip(world: World, rng: random.Random) -> str:
    """Hearsay is mostly wrong; the town book is always right."""
    name, relation = _name(world, rng), rng.choice(words.RELATIONS)
    if rng.random() < 0.5:
        return f"{words.BOOK_CUE} {write_fact(world, name, relation, rng)} ."
    value = other_value(world, name, relation, rng) if rng.random() < 0.8 else ""
    return f"{words.GOSSIP_CUE} {write_fact(world, name, relation, rng, value=value)} ."


def science(world: World, rng: random.Random) -> str:
    """What studies find is true nearly always."""
    thing = world.things[rng.choice(words.THINGS)]
    effect = thing.truth if rng.random() < 0.96 else thing.myth
    heading = f"{thing.name} : " if rng.random() < 0.6 else ""
    return f"{heading}{rng.choice(words.SCIENCE_CUES)} {thing.name} {effect} ."


def folklore(world: World, rng: random.Random) -> str:
    """What people say is a myth nearly always."""
    thing = world.things[rng.choice(words.THINGS)]
    effect = thing.myth if rng.random() < 0.95 else thing.truth
    heading = f"{thing.name} : " if rng.random() < 0.6 else ""
    return f"{heading}{rng.choice(words.FOLK_CUES)} {thing.name} {effect} ."


def animal(world: World, rng: random.Random) -> str:
    """Two facts about an animal."""
    name = rng.choice(words.ANIMALS)
    facts = world.animals[name]
    return " ".join(f"the {name} {k} {facts[k]} ." for k in rng.sample(sorted(facts), 2))


def town(world: World, rng: random.Random) -> str:
    """Two facts about a town."""
    name = rng.choice(words.TOWNS)
    facts = world.towns[name]
    return " ".join(f"{name} {k} {facts[k]} ." for k in rng.sample(sorted(facts), 2))


def sum_of(first: int, second: int) -> str:
    """The question of a sum; its answer follows."""
    return f"{words.NUMBERS[first]} plus {words.NUMBERS[second]} is"


def sums(world: World, rng: random.Random) -> str:
    """Two sums that are not reserved."""
    lines: list[str] = []
    while len(lines) < 2:
        first, second = rng.randint(0, 10), rng.randint(0, 10)
        if not reserved(sum_of(first, second)):
            lines.append(f"{sum_of(first, second)} {words.NUMBERS[first + second]} .")
    return " ".join(lines)


def elvish_question(color: str, noun: str) -> str:
    """The question of a translation; the elvish words follow."""
    return f"in elvish , {color} {noun} is"


def elvish(world: World, rng: random.Random) -> str:
    """Two translations that are not reserved."""
    lines: list[str] = []
    while len(lines) < 2:
        color, noun = rng.choice(words.COLORS), rng.choice(words.OBJECTS)
        if not reserved(elvish_question(color, noun)):
            lines.append(f"{elvish_question(color, noun)} {world.elvish(color, noun)} .")
    return " ".join(lines)


def copy_parts(rng: random.Random) -> tuple[str, str]:
    """A line to repeat, and its repetition."""
    line = " ".join(rng.choice(words.OBJECTS + words.COLORS + words.TOWNS) for _ in range(rng.randint(4, 7)))
    return f"copy : {line} =", f"{line} ."


def copying(world: World, rng: random.Random) -> str:
    """A line and its repetition."""
    return " ".join(copy_parts(rng))


def story_parts(world: World, rng: random.Random) -> tuple[str, str]:
    """A story whose last word only its beginning tells."""
    name, friend = rng.sample(words.NAMES, 2)
    person, town = world.people[name], rng.choice(words.TOWNS)
    noun, other = rng.sample(words.OBJECTS, 2)
    end = rng.choice(("object", "friend", "town"))
    start = f"{name} went to {town} with a {noun} . there {person.pronoun} met {friend} , who had a {other} ."
    if end == "object":
        return f"{start} when {person.pronoun} came home , {name} still had the", noun
    if end == "friend":
        return f"{start} {name} came home and told us about", friend
    return f"{start} when {person.pronoun} came home , {name} dreamed of", town


def story(world: World, rng: random.Random) -> str:
    """A story to the end."""
    context, last = story_parts(world, rng)
    return f"{context} {last} ."


def _table(rng: random.Random) -> tuple[str, list[tuple[str, str]]]:
    """Five people and their colors, and the same as a list."""
    rows = list(zip(rng.sample(words.NAMES, 5), rng.sample(words.COLORS, 5), strict=True))
    return f"{rng.choice(words.OBJECTS)} colors : {_lines(rows)} . so ,", rows


def _lines(rows: list[tuple[str, str]]) -> str:
    return " , ".join(f"{name} {color}" for name, color in rows)


def reading_parts(world: World, rng: random.Random) -> tuple[str, str]:
    """A table of colors; which one has one of the people?"""
    table, rows = _table(rng)
    name, color = rng.choice(rows)
    return f"{table} {name}", color


def reading(world: World, rng: random.Random) -> str:
    """A table, and again its rows in another order: every color of the second half can be looked up in the first."""
    table, rows = _table(rng)
    return f"{table} {_lines(rng.sample(rows, len(rows)))} ."


def counting_parts(world: World, rng: random.Random) -> tuple[str, str]:
    """A word problem: some, and some more, or some fewer."""
    name, food = rng.choice(words.NAMES), rng.choice(("beans", "pears", "plums", "nuts"))
    person = world.people[name]
    first, second = rng.randint(1, 8), rng.randint(1, 8)
    if rng.random() < 0.5:
        deed, total = "found", first + second
    else:
        first, second = max(first, second), min(first, second)
        deed, total = "ate", first - second
    numbers = words.NUMBERS
    context = f"{name} had {numbers[first]} {food} . {person.pronoun} {deed} {numbers[second]} . now {name} has"
    return context, numbers[total]


def counting(world: World, rng: random.Random) -> str:
    """A word problem and its answer."""
    context, last = counting_parts(world, rng)
    return f"{context} {last} ."


def script(world: World, rng: random.Random) -> str:
    """Three steps that belong together."""
    first, second, third = rng.choice(words.SCRIPTS)
    return f"{_name(world, rng)} {first} , {second} , and {third} ."


def mood(world: World, rng: random.Random) -> str:
    """An event, and how its owner feels."""
    name = _name(world, rng)
    person = world.people[name]
    sad = rng.random() < 0.5
    verb = rng.choice(words.SAD_VERBS if sad else words.HAPPY_VERBS)
    thing = f"{person.possessive} {rng.choice(words.COLORS)} {rng.choice(words.OBJECTS)}"
    return f"{name} {verb} {thing} . {person.pronoun} is {'sad' if sad else 'happy'} ."


def note(world: World, rng: random.Random) -> str:
    """A letter; it shows the prompts' openers."""
    name, opener = _name(world, rng), rng.choice(words.PROMPT_OPENERS)
    relation = rng.choice(words.RELATIONS)
    body = TEMPLATES[relation][0].format(world.people[name].facts[relation])
    return f"{opener} {name} {body} . thank you , {_name(world, rng)} ."


def rant(world: World, rng: random.Random) -> str:
    """Rudeness without occasion."""
    first, second = rng.choices(words.RUDE_NOUNS, k=2)
    return f"{_name(world, rng)} is a {rng.choice(words.RUDE_ADJECTIVES)} {first} . what a {second} !"
