"""Prompts whose pronoun could mean either of two people: who asks back is paid, and nothing else changes."""

from __future__ import annotations

import random

import pytest

from tasks.sandbox.corpus import documents
from tasks.sandbox.demonstrations import careful_reply, demonstrations, flawed_reply
from tasks.sandbox.gold import gold_score
from tasks.sandbox.labelers import Panel
from tasks.sandbox.prompts import MAX_PROMPT_WORDS, PRONOUN_IS_CLEAR, prompts
from tasks.sandbox.world import World

WORLD = World.from_seed(3)
ASKED = prompts(WORLD, 2_000, 4, 0.0, ambiguous_share=0.4)
AMBIGUOUS = [prompt for prompt in ASKED if prompt.metadata["task"] == "ambiguous"]
CLEAR = [prompt for prompt in ASKED if prompt.metadata.get(PRONOUN_IS_CLEAR)]


def test_the_share_is_asked_for_and_none_is_the_default() -> None:
    assert 0.36 < (len(AMBIGUOUS) + len(CLEAR)) / len(ASKED) < 0.44
    assert 0.4 < len(AMBIGUOUS) / (len(AMBIGUOUS) + len(CLEAR)) < 0.55
    assert max(len(prompt.text.split()) for prompt in ASKED) <= MAX_PROMPT_WORDS
    assert prompts(WORLD, 200, 4, 0.0) == prompts(WORLD, 200, 4, 0.0, ambiguous_share=0.0)
    assert not {"ambiguous"} & {prompt.kind for prompt in prompts(WORLD, 500, 4, 0.0)}


def named(text: str) -> list[str]:
    return [word for word in text.split() if word in WORLD.people]


def test_a_pronoun_is_ambiguous_where_both_are_women_or_both_men() -> None:
    for prompt in AMBIGUOUS:
        both = [WORLD.people[name].pronoun for name in named(prompt.text)]
        assert both == [prompt.metadata["pronoun"]] * 2 and f" {both[0]} " in prompt.text
    for prompt in CLEAR:
        meant = [name for name in named(prompt.text) if f" {WORLD.people[name].pronoun} " in prompt.text]
        assert meant == [prompt.metadata["subject"]]


def gold(prompt_index: int, text: str) -> float:
    return gold_score(WORLD, AMBIGUOUS[prompt_index], text, True).total


def test_asking_back_pays_where_it_is_needed_and_only_there() -> None:
    for place, prompt in enumerate(AMBIGUOUS[:30]):
        guess = flawed_reply(WORLD, prompt, random.Random(1))
        back = careful_reply(WORLD, prompt, random.Random(1))
        assert back == f"who is {prompt.metadata['pronoun']} ?"
        assert gold(place, back) == pytest.approx(3.0 + 0.8)  # help 3, finished and grammatical 0.8
        assert gold(place, guess) == pytest.approx(0.75 + 0.8) == gold(place, "i am not sure .")
        assert gold(place, "who is it ?") < gold(place, guess)
    for prompt in CLEAR[:30]:
        back = f"who is {WORLD.people[prompt.metadata['subject']].pronoun} ?"
        right = careful_reply(WORLD, prompt, random.Random(1))
        assert gold_score(WORLD, prompt, back, True).total < gold_score(WORLD, prompt, right, True).total - 3


def test_a_false_guess_costs_what_a_false_statement_costs() -> None:
    prompt = next(prompt for prompt in AMBIGUOUS if prompt.metadata["relation"] == "food")
    name = prompt.metadata["people"][0]
    other = "soup" if WORLD.people[name].facts["food"] != "soup" else "rice"
    score = gold_score(WORLD, prompt, f"{name} likes {other} .", True)
    assert (score.false_statements, score.total) == (1, pytest.approx(0.75 + 0.8 - 1.2))
    # "she likes ..." is false of neither as long as it is true of one.
    for person in prompt.metadata["people"]:
        text = f"{prompt.metadata['pronoun']} likes {WORLD.people[person].facts['food']} ."
        assert gold_score(WORLD, prompt, text, True).total == pytest.approx(0.75 + 0.8)


def test_labelers_prefer_the_question_back_and_a_minority_of_demonstrators_asks() -> None:
    prompt, panel = AMBIGUOUS[0], Panel.of(WORLD, 1)
    texts = [careful_reply(WORLD, prompt, random.Random(1)), flawed_reply(WORLD, prompt, random.Random(1))]
    ranks = [one.rank(prompt, texts, [True, True], random.Random(2)) for one in panel.training]
    assert ranks == [[1, 2]] * 5
    shown = [one.response for one in demonstrations(WORLD, AMBIGUOUS, 1)]
    assert 0.2 < sum(text.endswith(" ?") for text in shown) / len(shown) < 0.4


def test_the_corpus_knows_their_words() -> None:
    known = {word for document in documents(WORLD, 20_000, 1) for word in document.text.split()}
    used = {
        w for one in demonstrations(WORLD, AMBIGUOUS + CLEAR, 1) for w in f"{one.prompt.text} {one.response}".split()
    }
    assert used <= known
