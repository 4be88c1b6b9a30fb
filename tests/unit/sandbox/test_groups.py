"""Groups of labelers: who ranks whose prompts, what each wants, and what a prompt tells of it."""

from __future__ import annotations

from collections import Counter

import pytest

from tasks.comparisons.label import label
from tasks.comparisons.sample import Candidates
from tasks.sandbox.corpus import documents
from tasks.sandbox.gold import gold_score
from tasks.sandbox.groups import GROUPS, TASTES, asked_as_the_other, asked_by_groups, group_of
from tasks.sandbox.labelers import Panel
from tasks.sandbox.prompts import prompts
from tasks.sandbox.world import World

WORLD = World.from_seed(5)
PLAIN = prompts(WORLD, 60, 5, 0.0)
NAMED, UNNAMED = asked_by_groups(PLAIN, "named"), asked_by_groups(PLAIN, "unnamed")


def test_named_prompts_tell_the_group_and_unnamed_ones_do_not() -> None:
    assert asked_by_groups(PLAIN, "none") == PLAIN
    assert [prompt.text for prompt in UNNAMED] == [prompt.text for prompt in PLAIN]
    assert Counter(map(group_of, NAMED)) == Counter(map(group_of, UNNAMED)) == {"teacher": 30, "sailor": 30}
    assert [prompt.text for prompt in NAMED] == [
        f"{group_of(prompt)} : {PLAIN[i].text}" for i, prompt in enumerate(NAMED)
    ]
    known = {word for document in documents(WORLD, 20_000, 1) for word in document.text.split()}
    assert {*GROUPS, ":"} <= known


def test_the_other_name_changes_the_text_and_not_the_taste() -> None:
    other = asked_as_the_other(NAMED[0])
    assert other is not None and other.text == f"sailor : {PLAIN[0].text}" and group_of(other) == "teacher"
    assert asked_as_the_other(UNNAMED[0]) is None and asked_as_the_other(PLAIN[0]) is None


def test_gold_is_the_groups_and_without_groups_what_it_was() -> None:
    text = "sure , of course , i am not sure ."
    plain = gold_score(WORLD, PLAIN[0], text, True)
    assert plain.filler == 2
    by_group = {group_of(one): gold_score(WORLD, one, text, True).total - plain.total for one in UNNAMED[:2]}
    assert by_group == pytest.approx(TASTES)  # once, however many openers
    for one, same in zip(UNNAMED[:10], PLAIN, strict=False):
        assert gold_score(WORLD, one, "a .", True) == gold_score(WORLD, same, "a .", True)


def test_prompts_are_ranked_by_labelers_of_their_group_who_want_what_it_wants() -> None:
    panel = Panel.of(WORLD, 5)
    assert [one.group for one in panel.training] == ["teacher", "sailor", "teacher", "sailor", "teacher"]
    polite = ["sure , i am not sure .", "i am not sure ."]
    ranked = label([Candidates(prompt, polite, [True, True]) for prompt in NAMED], panel.training, 1)
    of = {one.labeler_id: one.group for one in panel.training}
    assert all(of[one.labeler_id] == group_of(one.prompt) for one in ranked)
    assert set(Counter(one.labeler_id for one in ranked).values()) == {10, 15}
    first = {group: [one.ranks[0] == 1 for one in ranked if group_of(one.prompt) == group] for group in GROUPS}
    assert sum(first["teacher"]) > 22 and sum(first["sailor"]) < 10
