"""Prompts as customers would send them: nine kinds, entities early, openings varied so that few share a prefix."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Any

from tasks.records.records import Prompt
from tasks.sandbox import words
from tasks.sandbox.world import World

PROMPTS_PER_OWNER = 5
MAX_PROMPT_WORDS = 26
PRONOUN_IS_CLEAR = "pronoun_is_clear"
"""Key of a prompt's metadata: of two people that it names, only one can be meant."""

Draft = tuple[str, dict[str, Any]]
"""The request itself, and what a judge must know about it."""

_COUNT_WORDS = {1: "one sentence", 2: "two sentences", 3: "three sentences"}
_RELATION_QUESTIONS: dict[str, tuple[str, ...]] = {
    "job": (
        "what does {} do for work ?",
        "which job does {} have now ?",
        "do you know what {} does for work ?",
    ),
    "town": (
        "where does {} live these days ?",
        "which town does {} live in ?",
        "do you know where {} lives these days ?",
    ),
    "food": (
        "what does {} like to eat ?",
        "which food does {} like best ?",
        "do you know what {} likes to eat ?",
    ),
    "pet": (
        "what pet does {} have now ?",
        "which pet does {} keep at home ?",
        "do you know what pet {} has now ?",
    ),
}
_THING_QUESTIONS = (
    "what does {} do ?",
    "what is {} good for ?",
    "why do people keep {} at home ?",
    "can you say what {} really does ?",
    "does {} do any good ?",
    "i bought {} , what does it do ?",
)


class Source:
    """Draws the entities of prompts: held-out ones with the given probability."""

    def __init__(self, world: World, rng: random.Random, held_out_share: float) -> None:
        self.world, self.rng, self.held_out_share = world, rng, held_out_share
        self.held_out = False

    def next(self) -> None:
        """Start another prompt: decide whether it is about held-out names and things."""
        self.held_out = self.rng.random() < self.held_out_share

    def name(self, other_than: str = "") -> str:
        """A person for this prompt."""
        return self.rng.choice([n for n in self.world.names(held_out=self.held_out) if n != other_than])

    def thing(self) -> str:
        """A thing for this prompt."""
        return self.rng.choice(self.world.thing_names(held_out=self.held_out))


def _generation(source: Source) -> Draft:
    rng, name = source.rng, source.name()
    task = rng.choices(("count", "mention", "begin"), weights=(6, 10, 12))[0]
    count = rng.choice((2, 3)) if task == "count" else rng.choice((1, 1, 2))
    size = _COUNT_WORDS[count]
    meta: dict[str, Any] = {"task": task, "subject": name, "count": count}
    forms: tuple[str, ...]
    if task == "count":
        forms = (
            f"write {size} about {name} right now .",
            f"tell me about {name} in {size} .",
            f"describe {name} in {size} .",
            f"who is {name} ? answer in {size} .",
            f"about {name} , write {size} .",
        )
    elif task == "mention":
        relation = rng.choice(words.RELATIONS)
        meta["relation"] = relation
        forms = (
            f"mention the {relation} of {name} in {size} .",
            f"write {size} about {name} with the {relation} in it .",
            f"describe {name} , but mention the {relation} , in {size} .",
            f"about {name} , write {size} and mention the {relation} there .",
        )
    else:
        word = rng.choice(words.BEGIN_WORDS)
        meta["word"] = word
        forms = (
            f"begin with {word} and describe {name} in {size} .",
            f"write {size} about {name} and begin with {word} if you can .",
            f"about {name} , begin with {word} and write {size} .",
            f"describe {name} , begin with {word} , in {size} .",
        )
    return rng.choice(forms), meta


def _person_question(source: Source) -> Draft:
    relation, name = source.rng.choice(words.RELATIONS), source.name()
    question = source.rng.choice(_RELATION_QUESTIONS[relation]).format(name)
    return question, {"task": "person", "subject": name, "relation": relation}


def _pair_question(source: Source) -> tuple[str, str, dict[str, Any]]:
    """Two people are named, and a pronoun that means one of them, or that could mean either."""
    rng, name, relation = source.rng, source.name(), source.rng.choice(words.RELATIONS)
    other, people = source.name(other_than=name), source.world.people
    pronoun, pair = people[name].pronoun, [name, other]
    rng.shuffle(pair)
    request = f"{pair[0]} met {pair[1]} . {rng.choice(_RELATION_QUESTIONS[relation]).format(pronoun)}"
    if people[other].pronoun == pronoun:
        return "ambiguous", request, {"task": "ambiguous", "people": pair, "pronoun": pronoun, "relation": relation}
    clear = {"task": "person", "subject": name, "relation": relation, PRONOUN_IS_CLEAR: True}
    return "open_qa", request, clear


def _thing_question(source: Source) -> Draft:
    thing, rng = source.thing(), source.rng
    if rng.random() < 0.45:
        question = rng.choice(("is it true that {} {} ?", "they say {} {} , do you agree ?")).format(
            thing, rng.choice(words.EFFECTS)
        )
    else:
        question = rng.choice(_THING_QUESTIONS).format(thing)
    return question, {"task": "thing", "subject": thing}


def _brainstorm(source: Source) -> Draft:
    rng = source.rng
    count, category = rng.randint(2, 4), rng.choice(sorted(words.CATEGORIES))
    verb = rng.choice(("name", "list", "give me"))
    request = f"{verb} {words.NUMBERS[count]} {category} {rng.choice(words.PURPOSES)} ."
    return request, {"task": "list", "count": count, "category": category}


def _chat(source: Source) -> Draft:
    rng = source.rng
    task = rng.choices(("insult", "sad", "happy", "thanks"), weights=(4, 4, 3, 1))[0]
    color, noun = rng.choice(words.COLORS), rng.choice(words.OBJECTS)
    meta: dict[str, Any] = {"task": task}
    forms: tuple[str, ...]
    if task == "insult":
        rude, adjective = rng.choice(words.RUDE_NOUNS), rng.choice(words.RUDE_ADJECTIVES)
        topic = rng.choice((source.thing(), source.name()))
        forms = tuple(form.format(rude=rude, adjective=adjective, topic=topic) for form in words.INSULTS)
    elif task in ("sad", "happy"):
        verb = rng.choice(words.SAD_VERBS if task == "sad" else words.HAPPY_VERBS)
        town = rng.choice(words.TOWNS)
        forms = (f"i {verb} my {color} {noun} today .", f"my {color} {noun} ! i {verb} it in {town} .")
    else:
        forms = (f"thank you for the {color} {noun} , friend .",)
    return rng.choice(forms), meta


def _rewrite(source: Source) -> Draft:
    rng = source.rng
    color, noun, name = rng.choice(words.COLORS), rng.choice(words.OBJECTS), source.name()
    task = rng.choice(("polite", "recolor", "rename"))
    if task == "polite":
        target = f"please give me the {color} {noun} ."
        return f"give me the {color} {noun} . say it politely .", {"task": task, "targets": [target]}
    if task == "recolor":
        other = rng.choice([c for c in words.COLORS if c != color])
        request = f"{name} has a {color} {noun} . say it with {other} ."
        return request, {"task": task, "targets": [f"{name} has a {other} {noun} ."]}
    other = source.name(other_than=name)
    request = f"{name} has a {color} {noun} . say it about {other} ."
    return request, {"task": task, "targets": [f"{other} has a {color} {noun} ."]}


def _summary(source: Source) -> Draft:
    rng, name = source.rng, source.name()
    friend, town = source.name(other_than=name), rng.choice(words.TOWNS)
    color, noun = rng.choice(words.COLORS), rng.choice(words.OBJECTS)
    pronoun = source.world.people[name].pronoun
    request = f"{name} went to {town} . {pronoun} met {friend} . {pronoun} bought a {color} {noun} . make it short ."
    facts = {"who": name, "what": noun, "where": town}
    return request, {"task": "summary", "targets": [f"{name} bought a {noun} in {town} ."], "facts": facts}


def _classify(source: Source) -> Draft:
    rng, name = source.rng, source.name()
    sad = rng.random() < 0.5
    verb = rng.choice(words.SAD_VERBS if sad else words.HAPPY_VERBS)
    possessive = source.world.people[name].possessive
    request = f"{name} {verb} {possessive} {rng.choice(words.COLORS)} {rng.choice(words.OBJECTS)} . happy or sad ?"
    mood = "sad" if sad else "happy"
    return request, {"task": "mood", "targets": [f"{mood} ."]}


def _closed_qa(source: Source) -> Draft:
    rng, name = source.rng, source.name()
    other = source.name(other_than=name)
    first, second = rng.sample(words.OBJECTS, 2)
    owner, noun = rng.choice(((name, first), (other, second)))
    request = f"the {first} goes to {name} . the {second} goes to {other} . who gets the {noun} now ?"
    return request, {"task": "owner", "targets": [f"the {noun} goes to {owner} .", f"{owner} gets the {noun} ."]}


def _extract(source: Source) -> Draft:
    rng, name = source.rng, source.name()
    town, color, noun = rng.choice(words.TOWNS), rng.choice(words.COLORS), rng.choice(words.OBJECTS)
    what, target = rng.choice((("town", town), ("color", color), ("name", name)))
    request = f"{name} bought a {color} {noun} in {town} . which {what} is in it ?"
    return request, {"task": "extract", "targets": [f"{target} ."], "field": what}


KINDS: tuple[tuple[str, float, float, Callable[[Source], Draft]], ...] = (
    ("generation", 0.28, 0.22, _generation),
    ("open_qa", 0.13, 0.08, _person_question),
    ("open_qa", 0.16, 0.15, _thing_question),
    ("brainstorm", 0.09, 0.08, _brainstorm),
    ("chat", 0.14, 0.07, _chat),
    ("rewrite", 0.05, 0.10, _rewrite),
    ("summary", 0.04, 0.10, _summary),
    ("classify", 0.04, 0.03, _classify),
    ("closed_qa", 0.04, 0.10, _closed_qa),
    ("extract", 0.03, 0.07, _extract),
)
"""Use case, its share among customers' prompts, its share among the forum questions of the corpus, and its writer."""
CUSTOMER_SHARES = [customers for _, customers, _, _ in KINDS]
FORUM_SHARES = [forum for _, _, forum, _ in KINDS]


def layout(request: str) -> str:
    """The one prompt layout of the sandbox; pretraining text has it too, so that the base model knows it."""
    return f"q : {request} a :"


def draft(source: Source, shares: list[float]) -> tuple[str, str, dict[str, Any]]:
    """One request: (kind, request without opener, metadata). `shares` weigh the use cases."""
    kind, _, _, make = source.rng.choices(KINDS, weights=shares)[0]
    source.next()
    request, metadata = make(source)
    return kind, request, {**metadata, "held_out": source.held_out}


def draft_of_pair(source: Source) -> tuple[str, str, dict[str, Any]]:
    """As ``draft``, of a request that names two people."""
    source.next()
    kind, request, metadata = _pair_question(source)
    return kind, request, {**metadata, "held_out": source.held_out}


def prompts(
    world: World,
    count: int,
    seed: int,
    held_out_share: float,
    *,
    exclude: Collection[str] = (),
    ambiguous_share: float = 0.0,
) -> list[Prompt]:
    """`count` prompts with distinct texts, none of them in `exclude`, about five per owner.

    `held_out_share` is the probability that a prompt is about names and things that tuning never sees; `ambiguous_share` that it
    names two people and asks about him or her, which about half of the time could mean either.
    """
    rng = random.Random(f"prompts {world.seed} {seed}")
    source = Source(world, rng, held_out_share)
    pairs = random.Random(
        f"ambiguous {world.seed} {seed}"
    )  # of its own: without such prompts the others are as they were
    owners = max(1, round(count / PROMPTS_PER_OWNER))
    seen = set(exclude)
    result: list[Prompt] = []
    attempts = 0
    while len(result) < count:
        attempts += 1
        of_pair = pairs.random() < ambiguous_share
        kind, request, metadata = draft_of_pair(source) if of_pair else draft(source, CUSTOMER_SHARES)
        text = layout(f"{rng.choice(words.PROMPT_OPENERS)} {request}")
        if len(text.split()) > MAX_PROMPT_WORDS or (text in seen and attempts < 20 * count):
            continue
        seen.add(text)
        result.append(
            Prompt(
                prompt_id=f"sandbox-{seed}-{len(result):06d}",
                owner_id=f"owner-{seed}-{rng.randrange(owners):05d}",
                text=text,
                kind=kind,
                metadata=metadata,
            )
        )
    return result
