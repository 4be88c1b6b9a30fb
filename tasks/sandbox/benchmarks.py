"""Automatic benchmarks: skills that pretraining teaches and that tuning may cost (the alignment tax)."""

from __future__ import annotations

import random
from collections.abc import Callable

from tasks.records.records import BenchmarkItem
from tasks.sandbox import documents as kinds
from tasks.sandbox import words
from tasks.sandbox.sentences import TEMPLATES
from tasks.sandbox.world import World

CHOICES = 4

Question = tuple[str, str, list[str]]
"""Context, right answer, wrong answers (empty: the answer is generated)."""


def _recall(world: World, rng: random.Random) -> Question:
    return *kinds.story_parts(world, rng), []


def _reading(world: World, rng: random.Random) -> Question:
    return *kinds.reading_parts(world, rng), []


def _counting(world: World, rng: random.Random) -> Question:
    return *kinds.counting_parts(world, rng), []


def _copying(world: World, rng: random.Random) -> Question:
    return *kinds.copy_parts(rng), []


def _sums(world: World, rng: random.Random) -> Question:
    first, second = rng.randint(0, 10), rng.randint(0, 10)
    return kinds.sum_of(first, second), words.NUMBERS[first + second], []


def _elvish(world: World, rng: random.Random) -> Question:
    color, noun = rng.choice(words.COLORS), rng.choice(words.OBJECTS)
    return kinds.elvish_question(color, noun), world.elvish(color, noun), []


def _facts(world: World, rng: random.Random) -> Question:
    name, relation = rng.choice(words.NAMES), rng.choice(words.RELATIONS)
    template = rng.choice(TEMPLATES[relation])
    return f"{name} {template.format('').strip()}", world.people[name].facts[relation], []


def _scripts(world: World, rng: random.Random) -> Question:
    """The third step of the script, against the third steps of others and a repeated second step."""
    first, second, third = rng.choice(words.SCRIPTS)
    others = [s[2] for s in words.SCRIPTS if s[2] != third]
    context = f"{rng.choice(words.NAMES)} {first} , {second} , and"
    return context, f"{third} .", [f"{w} ." for w in [*rng.sample(others, CHOICES - 2), second]]


def _animals(world: World, rng: random.Random) -> Question:
    name, relation = rng.choice(words.ANIMALS), rng.choice(sorted(words.ANIMAL_FACTS))
    return f"the {name} {relation}", world.animals[name][relation], []


def _towns(world: World, rng: random.Random) -> Question:
    name, relation = rng.choice(words.TOWNS), rng.choice(sorted(words.TOWN_FACTS))
    right = world.towns[name][relation]
    wrong = rng.sample([v for v in words.TOWN_FACTS[relation] if v != right], CHOICES - 1)
    return f"{name} {relation}", right, wrong


TASKS: dict[str, Callable[[World, random.Random], Question]] = {
    "recall": _recall,
    "reading": _reading,
    "counting": _counting,
    "copying": _copying,
    "sums": _sums,
    "elvish": _elvish,
    "facts": _facts,
    "scripts": _scripts,
    "animals": _animals,
    "towns": _towns,
}


def benchmark_items(world: World, count_per_task: int, seed: int) -> list[BenchmarkItem]:
    """Up to `count_per_task` different items of every task; small tasks have fewer.

    A context ends where the answer begins. Form "exact": the model continues the context; form "choice": the
    continuation with the highest likelihood counts.
    """
    items = []
    for task, ask in TASKS.items():
        rng = random.Random(f"benchmark {task} {world.seed} {seed}")
        seen: set[str] = set()
        for _ in range(20 * count_per_task):
            context, right, wrong = ask(world, rng)
            if context in seen:
                continue
            seen.add(context)
            choices = rng.sample([right, *wrong], 1 + len(wrong)) if wrong else []
            items.append(
                BenchmarkItem(
                    item_id=f"{task}-{len(seen):04d}",
                    task=task,
                    form="choice" if wrong else "exact",
                    context=context,
                    choices=choices,
                    answer=choices.index(right) if wrong else None,
                    references=[] if wrong else [right],
                )
            )
            if len(seen) == count_per_task:
                break
    return items
