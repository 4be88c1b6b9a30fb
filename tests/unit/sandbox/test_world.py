"""The world and everything drawn from it is a function of seeds, and fits the model it was made for."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tasks.engine.errors import DataError
from tasks.sandbox import words
from tasks.sandbox.benchmarks import TASKS, benchmark_items
from tasks.sandbox.corpus import documents
from tasks.sandbox.demonstrations import FLAW_SHARE, demonstrations
from tasks.sandbox.gold import gold_score
from tasks.sandbox.prompts import MAX_PROMPT_WORDS, prompts
from tasks.sandbox.safety import toxicity_prompts
from tasks.sandbox.world import World

WORLD = World.from_seed(7)
VOCABULARY_LIMIT = 512 - 4  # special tokens


def test_a_seed_gives_the_same_world_every_time() -> None:
    assert World.from_seed(7) == WORLD
    assert World.from_seed(8) != WORLD


def test_a_world_survives_json() -> None:
    assert World.from_json(json.loads(json.dumps(WORLD.to_json()))) == WORLD


def test_a_record_of_another_format_is_refused() -> None:
    with pytest.raises(DataError, match="format None, expected 1; run data_prep again"):
        World.from_json({})


def test_everything_is_a_function_of_its_seed() -> None:
    asked = prompts(WORLD, 50, 1, 0.3)
    assert prompts(WORLD, 50, 1, 0.3) == asked != prompts(WORLD, 50, 2, 0.3)
    assert documents(WORLD, 50, 1) == documents(WORLD, 50, 1) != documents(WORLD, 50, 2)
    assert demonstrations(WORLD, asked, 1) == demonstrations(WORLD, asked, 1) != demonstrations(WORLD, asked, 2)
    assert benchmark_items(WORLD, 5, 1) == benchmark_items(WORLD, 5, 1) != benchmark_items(WORLD, 5, 2)
    assert toxicity_prompts(WORLD, 9, 1) == toxicity_prompts(WORLD, 9, 1) != toxicity_prompts(WORLD, 9, 2)


def test_true_and_mythical_effects_differ() -> None:
    assert all(thing.truth != thing.myth for thing in WORLD.things.values())


def test_the_corpus_teaches_every_word_that_is_ever_used() -> None:
    """Otherwise a word-level tokenizer would map prompts or answers to the unknown token."""
    corpus = documents(WORLD, 20_000, 1)
    known = Counter(word for document in corpus for word in document.text.split())
    assert len(known) <= VOCABULARY_LIMIT
    asked = prompts(WORLD, 3_000, 1, 0.3)
    used = {w for d in demonstrations(WORLD, asked, 1) for w in f"{d.prompt.text} {d.response}".split()}
    for item in benchmark_items(WORLD, 200, 1):
        used |= {w for text in (item.context, *item.choices, *item.references) for w in text.split()}
    used |= {w for prompt in toxicity_prompts(WORLD, 200, 1) for w in prompt.text.split()}
    assert used <= set(known)


def test_documents_are_words_with_single_spaces() -> None:
    for document in documents(WORLD, 2_000, 2):
        assert document.text == " ".join(document.text.lower().split())
        assert len(document.text.split()) <= 50


def test_prompts_are_distinct_short_and_of_many_owners() -> None:
    asked = prompts(WORLD, 5_000, 3, 0.0)
    assert len({p.text for p in asked}) == len({p.prompt_id for p in asked}) == 5_000
    assert max(len(p.text.split()) for p in asked) <= MAX_PROMPT_WORDS
    assert 900 <= len({p.owner_id for p in asked}) <= 1_000
    again = prompts(WORLD, 500, 4, 0.0, exclude={p.text for p in asked})
    assert not {p.text for p in asked} & {p.text for p in again}


def test_prompts_rarely_share_four_fifths_of_their_words() -> None:
    """Deduplication by long common prefix must leave nearly all of them."""
    starts: set[tuple[str, ...]] = set()
    kept = 0
    asked = prompts(WORLD, 4_000, 5, 0.0)
    for prompt in asked:
        tokens = prompt.text.split()
        start = tuple(tokens[: int(0.8 * len(tokens))])
        kept += start not in starts
        starts.add(start)
    assert kept > 0.9 * len(asked)


def test_tuning_prompts_never_name_what_is_held_out() -> None:
    held_out = {*WORLD.held_out_names, *WORLD.held_out_things}
    assert (len(WORLD.held_out_names), len(WORLD.held_out_things)) == (8, 10)
    for prompt in prompts(WORLD, 1_500, 6, 0.0):
        assert not held_out & set(prompt.text.split())
        assert prompt.metadata["held_out"] is False
    share = [p.metadata["held_out"] for p in prompts(WORLD, 1_500, 6, 0.35)]
    assert 0.3 < sum(share) / len(share) < 0.4


def test_the_corpus_holds_no_prompt_verbatim() -> None:
    questions = {d.text.split(" a : ")[0] + " a :" for d in documents(WORLD, 5_000, 7) if d.source == "forum"}
    assert not questions & {p.text for p in prompts(WORLD, 5_000, 7, 0.3)}


def test_on_flawed_tasks_a_good_minority_of_demonstrations_is_right() -> None:
    shown = demonstrations(WORLD, prompts(WORLD, 3_000, 8, 0.0), 8)
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for d in shown:
        task = d.prompt.metadata["task"]
        total[task] += 1
        right[task] += gold_score(WORLD, d.prompt, d.response, True).help == 1.0
        assert len(d.response.split()) <= 27  # and EOS
    for task in ("mention", "begin", "person", "thing", "insult", "sad", "happy"):
        assert FLAW_SHARE[task] > 0.5
        assert 0.2 < right[task] / total[task] < 0.45, task
    for task in ("count", "list", "mood", "owner", "summary"):
        assert right[task] / total[task] > 0.75, task


def test_benchmark_answers_are_not_in_their_choices_order() -> None:
    items = benchmark_items(WORLD, 60, 9)
    assert {item.task for item in items} == set(TASKS)
    assert len({item.item_id for item in items}) == len(items)
    answers = Counter(item.answer for item in items if item.form == "choice")
    assert set(answers) == {0, 1, 2, 3}
    for item in items:
        assert bool(item.choices) != bool(item.references)
        assert len(item.choices) == len(set(item.choices))


def test_reserved_sums_are_asked_but_never_taught() -> None:
    taught = " ".join(d.text for d in documents(WORLD, 20_000, 10))
    asked = [i for i in benchmark_items(WORLD, 121, 10) if i.task == "sums"]
    new = [i for i in asked if i.context not in taught]
    assert 5 <= len(new) <= 30


def test_elvish_agrees_with_the_class_of_the_noun() -> None:
    forms = {WORLD.elvish("red", noun).split()[1] for noun in words.OBJECTS}
    assert forms == set(WORLD.elvish_adjectives["red"])
