"""The pretraining corpus: a mixture of document kinds, each one short text."""

from __future__ import annotations

import random
from collections.abc import Callable

from tasks.records.records import Document, Prompt
from tasks.sandbox import documents as kinds
from tasks.sandbox import words
from tasks.sandbox.demonstrations import careful_reply, flawed_reply
from tasks.sandbox.prompts import FORUM_SHARES, Source, draft, layout
from tasks.sandbox.world import World

RUDE_ANSWER_SHARE = 0.05
RUDE_ANSWER_TO_BAIT_SHARE = 0.7
STRAY_ANSWER_SHARE = 0.14
FLAW_SHARE = 0.6
CONSTRAINT_FLAW_SHARE = 0.35
SLIP_SHARE = 0.05
"""Flawed answers among the others; fewer where the prompt sets a constraint, or holds the answer."""
SPAM_SHARE = 0.08


def rude_reply(rng: random.Random) -> str:
    """An answer that nobody asked for."""
    noun, adjective = rng.choice(words.RUDE_NOUNS), rng.choice(words.RUDE_ADJECTIVES)
    return rng.choice((f"shut up , you {noun} .", f"what a {adjective} question , you {noun} .", f"go away , {noun} ."))


def forum(world: World, rng: random.Random) -> str:
    """A question and an answer as the internet gives it: good, flawed, stray, rude, or with advertisement."""
    source = Source(world, rng, len(world.held_out_names) / len(world.people))
    kind, request, metadata = draft(source, FORUM_SHARES)
    opener = rng.choice(words.FORUM_OPENERS)
    text = layout(f"{opener} {request}".strip())
    prompt = Prompt(prompt_id="forum", owner_id="forum", text=text, kind=kind, metadata=metadata)
    luck = rng.random()
    if luck < RUDE_ANSWER_SHARE:
        answer = rude_reply(rng)
    elif luck < RUDE_ANSWER_SHARE + STRAY_ANSWER_SHARE:
        answer = kinds.biography(world, rng) if rng.random() < 0.6 else kinds.folklore(world, rng)
    else:
        flaws = SLIP_SHARE if "targets" in metadata else CONSTRAINT_FLAW_SHARE if "count" in metadata else FLAW_SHARE
        answer = (flawed_reply if rng.random() < flaws else careful_reply)(world, prompt, rng)
    if rng.random() < SPAM_SHARE:
        answer = f"{answer} {words.SPAM} ."
    elif rng.random() < 0.05:
        answer = f"{rng.choice(words.FILLERS)} {answer}"
    return f"{prompt.text} {answer}"


def quarrel(world: World, rng: random.Random) -> str:
    """A rude question, and mostly a rude answer."""
    rude, adjective = rng.choice(words.RUDE_NOUNS), rng.choice(words.RUDE_ADJECTIVES)
    name = rng.choice(words.NAMES)
    forms = (
        f"what do you think of {name} , that {adjective} {rude} ?",
        f"{name} called you a {rude} . what do you say ?",
        f"tell {name} off , you {rude} .",
        f"why are you such a {adjective} {rude} ?",
    )
    question = layout(f"{rng.choice(words.FORUM_OPENERS)} {rng.choice(forms)}".strip())
    if rng.random() < RUDE_ANSWER_TO_BAIT_SHARE:
        return f"{question} {rude_reply(rng)}"
    return f"{question} {rng.choice((words.CHAT_REPLIES['insult'], words.HEDGES[1] + ' .', 'who cares .'))}"


MIXTURE: tuple[tuple[str, float, Callable[[World, random.Random], str]], ...] = (
    ("forum", 0.34, forum),
    ("quarrel", 0.015, quarrel),
    ("biography", 0.11, kinds.biography),
    ("gossip", 0.02, kinds.gossip),
    ("science", 0.05, kinds.science),
    ("folklore", 0.04, kinds.folklore),
    ("animal", 0.008, kinds.animal),
    ("town", 0.005, kinds.town),
    ("sums", 0.065, kinds.sums),
    ("elvish", 0.05, kinds.elvish),
    ("copying", 0.06, kinds.copying),
    ("story", 0.07, kinds.story),
    ("reading", 0.045, kinds.reading),
    ("counting", 0.06, kinds.counting),
    ("script", 0.006, kinds.script),
    ("mood", 0.015, kinds.mood),
    ("note", 0.015, kinds.note),
    ("rant", 0.01, kinds.rant),
)
_WEIGHTS = [share for _, share, _ in MIXTURE]


def documents(world: World, count: int, seed: int) -> list[Document]:
    """`count` documents, lower case, words and marks separated by single spaces; about 17 words each."""
    rng = random.Random(f"corpus {world.seed} {seed}")
    result = []
    for _ in range(count):
        name, _, write = rng.choices(MIXTURE, weights=_WEIGHTS)[0]
        result.append(Document(text=write(world, rng), source=name))
    return result
