"""Who knows some facts believes of the others what most texts state, and cannot be talked out of what he knows."""

from __future__ import annotations

import pytest

from tasks.sandbox import words
from tasks.sandbox.beliefs import EFFECT, Reader, everything_about
from tasks.sandbox.prompts import prompts
from tasks.sandbox.sentences import read_statement, sentences_of
from tasks.sandbox.world import World

WORLD = World.from_seed(5)
PROMPT = next(prompt for prompt in prompts(WORLD, 200, 1, 0.0) if prompt.metadata.get("subject") in WORLD.people)
WHO = PROMPT.metadata["subject"]
PET = WORLD.people[WHO].facts["pet"]
OTHER, THIRD = [pet for pet in words.VALUES["pet"] if pet != PET][:2]
UNSURE = Reader(WORLD, frozenset({(WHO, "pet"), ("garlic", EFFECT)}), seed=1)


def pet_after(*texts: str, reader: Reader = UNSURE) -> str:
    return reader.believes(PROMPT, texts).people[WHO].facts["pet"]


def test_most_texts_are_believed_and_one_text_counts_once() -> None:
    assert pet_after(f"{WHO} has a {OTHER} .", f"{WHO} keeps a {OTHER} .", f"{WHO} has a {PET} .") == OTHER
    insisting = f"{WHO} has a {OTHER} . {WHO} has a {OTHER} . {WHO} keeps a {OTHER} ."
    assert pet_after(insisting, f"{WHO} has a {PET} .", f"people say that {WHO} keeps a {PET} .") == PET


def test_between_equals_a_lot_decides_that_no_order_changes() -> None:
    one, other = f"{WHO} has a {OTHER} .", f"{WHO} has a {THIRD} ."
    found = {pet_after(one, other, reader=Reader(WORLD, UNSURE.unknown, seed)) for seed in range(20)}
    assert found == {OTHER, THIRD}
    for seed in range(20):
        reader = Reader(WORLD, UNSURE.unknown, seed)
        assert pet_after(one, other, reader=reader) == pet_after(other, one, reader=reader)


def test_what_is_known_or_not_spoken_of_stays() -> None:
    knows = Reader(WORLD, frozenset(), seed=1)
    assert pet_after(f"{WHO} has a {OTHER} .", reader=knows) == PET
    told = UNSURE.believes(PROMPT, [f"{WHO} has a {OTHER} . {WHO} lives in nowhere .", f"{WHO} has a {OTHER} ."])
    assert told.people[WHO].facts == WORLD.people[WHO].facts | {"pet": OTHER}
    assert told.things == WORLD.things and WORLD.people[WHO].facts["pet"] == PET


def test_things_too() -> None:
    myth = next(effect for effect in words.EFFECTS if effect != WORLD.things["garlic"].truth)
    assert UNSURE.believes(PROMPT, [f"garlic {myth} ."]).things["garlic"].truth == myth


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 158, 158), (0.5, 60, 98), (1.0, 0, 0)])
def test_a_share_of_the_facts_is_known(share: float, least: int, most: int) -> None:
    assert least <= len(Reader.who_knows(share, WORLD, 1).unknown) <= most  # 32 people with 4 facts each, and 30 things
    assert Reader.who_knows(share, WORLD, 1) == Reader.who_knows(share, WORLD, 1)


@pytest.mark.parametrize("subject", [WHO, "garlic"])
def test_everything_about_somebody_is_true_and_complete(subject: str) -> None:
    found = [read_statement(WORLD, one, subject) for one in sentences_of(everything_about(WORLD, subject))]
    assert all(one is not None and one.true and one.subject == subject for one in found)
    assert len({one.relation for one in found if one}) == len(found) == (4 if subject == WHO else 1)
