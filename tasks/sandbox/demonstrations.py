"""Demonstrators: what people write when asked to show the right answer.

As with real demonstrations, writing is harder than judging. On some tasks most demonstrators share a bad habit that
every labeler sees: they repeat the myth, hedge about people, answer feelings curtly, ignore a constraint. A minority
does it right. Imitating the majority is then systematically wrong, and no decoding temperature repairs it; preferring
the minority is what the comparisons teach.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tasks.records.records import Demonstration, Prompt
from tasks.sandbox import words
from tasks.sandbox.sentences import other_value, write_fact
from tasks.sandbox.world import World

FLAW_SHARE: dict[str, float] = {
    "mention": 0.7,
    "begin": 0.7,
    "person": 0.7,
    "thing": 0.7,
    "ambiguous": 0.7,
    "insult": 0.7,
    "sad": 0.7,
    "happy": 0.7,
    "thanks": 0.3,
}
"""Share of demonstrations with the habitual flaw, per task; other tasks have careless slips only."""
SLIP_SHARE = 0.12
RUDE_SHARE = 0.3
"""Of the curt answers to insults, the share that insults back."""
FILLER_SHARE = 0.04
LABELERS = 20

Writer = Callable[[World, Prompt, random.Random], str]


def _facts(world: World, name: str, relations: list[str], rng: random.Random) -> str:
    """One sentence per relation; after the first, "he" or "she"."""
    sentences = (write_fact(world, name, r, rng, pronoun=i > 0) for i, r in enumerate(relations))
    return " ".join(f"{sentence} ." for sentence in sentences)


def _some_relations(count: int, rng: random.Random, *, first: str = "", without: str = "") -> list[str]:
    rest = [r for r in words.RELATIONS if r not in (first, without)]
    chosen = rng.sample(rest, count - bool(first))
    return [first, *chosen] if first else chosen


def _generation(world: World, prompt: Prompt, rng: random.Random) -> str:
    meta = prompt.metadata
    first = meta["relation"] if meta["task"] == "mention" else ""
    text = _facts(world, meta["subject"], _some_relations(meta["count"], rng, first=first), rng)
    return f"{meta['word']} , {text}" if meta["task"] == "begin" else text


def _generation_flawed(world: World, prompt: Prompt, rng: random.Random) -> str:
    meta = prompt.metadata
    if meta["task"] == "count":
        return _facts(world, meta["subject"], _some_relations(meta["count"] - 1, rng), rng)
    without = meta["relation"] if meta["task"] == "mention" else ""
    return _facts(world, meta["subject"], _some_relations(meta["count"], rng, without=without), rng)


def _person(world: World, prompt: Prompt, rng: random.Random) -> str:
    return f"{write_fact(world, prompt.metadata['subject'], prompt.metadata['relation'], rng)} ."


def _person_flawed(world: World, prompt: Prompt, rng: random.Random) -> str:
    if rng.random() < 0.95:
        return f"{words.HEDGES[0]} ."
    name, relation = prompt.metadata["subject"], prompt.metadata["relation"]
    return f"{write_fact(world, name, relation, rng, value=other_value(world, name, relation, rng))} ."


def _ambiguous(world: World, prompt: Prompt, rng: random.Random) -> str:
    return words.question_back(prompt.metadata["pronoun"])


def _ambiguous_flawed(world: World, prompt: Prompt, rng: random.Random) -> str:
    return f"{write_fact(world, rng.choice(prompt.metadata['people']), prompt.metadata['relation'], rng)} ."


def _thing(world: World, prompt: Prompt, rng: random.Random) -> str:
    thing = world.things[prompt.metadata["subject"]]
    cue = f"{rng.choice(words.SCIENCE_CUES)} " if rng.random() < 0.85 else ""
    return f"{cue}{thing.name} {thing.truth} ."


def _thing_flawed(world: World, prompt: Prompt, rng: random.Random) -> str:
    thing = world.things[prompt.metadata["subject"]]
    cue = f"{rng.choice(words.FOLK_CUES)} " if rng.random() < 0.85 else ""
    return f"{cue}{thing.name} {thing.myth} ."


def _list(world: World, prompt: Prompt, rng: random.Random) -> str:
    return " , ".join(rng.sample(words.CATEGORIES[prompt.metadata["category"]], prompt.metadata["count"])) + " ."


def _list_flawed(world: World, prompt: Prompt, rng: random.Random) -> str:
    count = prompt.metadata["count"] + rng.choice((-1, 1))
    return " , ".join(rng.sample(words.CATEGORIES[prompt.metadata["category"]], count)) + " ."


def _chat(world: World, prompt: Prompt, rng: random.Random) -> str:
    return words.CHAT_REPLIES[prompt.metadata["task"]]


def _chat_flawed(world: World, prompt: Prompt, rng: random.Random) -> str:
    if prompt.metadata["task"] == "insult" and rng.random() < RUDE_SHARE:
        return f"who cares , you {rng.choice(words.RUDE_NOUNS)} ."
    return words.CURT_REPLIES[prompt.metadata["task"] in ("happy", "thanks")]


def _target(world: World, prompt: Prompt, rng: random.Random) -> str:
    return str(prompt.metadata["targets"][0])


def _target_flawed(world: World, prompt: Prompt, rng: random.Random) -> str:
    """A careless slip: one word of the right answer is replaced by another of its sort."""
    answer = prompt.metadata["targets"][0].split()
    pools = [words.NAMES, words.TOWNS, words.COLORS, words.OBJECTS, ["happy", "sad"]]
    places = [(i, pool) for i, word in enumerate(answer) for pool in pools if word in pool]
    i, pool = rng.choice(places)
    answer[i] = rng.choice([word for word in pool if word != answer[i]])
    return " ".join(answer)


_GENERATION = (_generation, _generation_flawed)
_CHAT = (_chat, _chat_flawed)
_TARGET = (_target, _target_flawed)
_WRITERS: dict[str, tuple[Writer, Writer]] = {
    **dict.fromkeys(("count", "mention", "begin"), _GENERATION),
    "person": (_person, _person_flawed),
    "thing": (_thing, _thing_flawed),
    "ambiguous": (_ambiguous, _ambiguous_flawed),
    "list": (_list, _list_flawed),
    **dict.fromkeys(words.CHAT_REPLIES, _CHAT),
    **dict.fromkeys(("polite", "recolor", "rename", "summary", "mood", "owner", "extract"), _TARGET),
}


def careful_reply(world: World, prompt: Prompt, rng: random.Random) -> str:
    """An answer a gold judge pays in full."""
    return _WRITERS[prompt.metadata["task"]][0](world, prompt, rng)


def flawed_reply(world: World, prompt: Prompt, rng: random.Random) -> str:
    """An answer with the habitual flaw of its task."""
    return _WRITERS[prompt.metadata["task"]][1](world, prompt, rng)


def demonstrations(world: World, prompts: list[Prompt], seed: int) -> list[Demonstration]:
    """One demonstration per prompt, each by one of twenty demonstrators."""
    rng = random.Random(f"demonstrations {world.seed} {seed}")
    result = []
    for prompt in prompts:
        flawed = rng.random() < FLAW_SHARE.get(prompt.metadata["task"], SLIP_SHARE)
        response = (flawed_reply if flawed else careful_reply)(world, prompt, rng)
        if rng.random() < FILLER_SHARE:
            response = f"{rng.choice(words.FILLERS)} {response}"
        labeler = f"demonstrator-{rng.randrange(LABELERS):02d}"
        result.append(Demonstration(prompt=prompt, response=response, labeler_id=labeler))
    return result
