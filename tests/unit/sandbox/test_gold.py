"""The gold judge on answers written by hand, and its holes, of which there should be none."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tasks.engine.errors import DataError
from tasks.records.records import Prompt
from tasks.sandbox import words
from tasks.sandbox.demonstrations import careful_reply, flawed_reply
from tasks.sandbox.gold import gold_score
from tasks.sandbox.prompts import prompts
from tasks.sandbox.world import Person, Thing, World

PERFECT = 3.8


@pytest.fixture(scope="module")
def world() -> World:
    """A world whose facts the tests below can name."""
    drawn = World.from_seed(0)
    people = dict(drawn.people)
    people["sam"] = Person("sam", False, {"job": "painter", "town": "clayton", "food": "rice", "pet": "dog"})
    people["ann"] = Person("ann", True, {"job": "miner", "town": "ashby", "food": "soup", "pet": "cat"})
    things = {**drawn.things, "garlic": Thing("garlic", "cleans glass", "brings luck")}
    return World.from_json({**drawn.to_json(), **_json(people, things)})


def _json(people: dict[str, Person], things: dict[str, Thing]) -> dict[str, Any]:
    return {
        "people": {n: {"name": p.name, "female": p.female, "facts": p.facts} for n, p in people.items()},
        "things": {n: {"name": t.name, "truth": t.truth, "myth": t.myth} for n, t in things.items()},
    }


def _prompt(**metadata: Any) -> Prompt:
    return Prompt(prompt_id="p", owner_id="o", text="q : anything ? a :", metadata=metadata)


JOB = _prompt(task="person", subject="sam", relation="job")
THING = _prompt(task="thing", subject="garlic")
TWO = _prompt(task="count", subject="sam", count=2)
MENTION = _prompt(task="mention", subject="ann", count=1, relation="town")
BEGIN = _prompt(task="begin", subject="sam", count=1, word="today")
LIST = _prompt(task="list", count=3, category="towns")
SAD = _prompt(task="sad")
SUMMARY = _prompt(
    task="summary",
    facts={"who": "ann", "what": "scarf", "where": "ashby"},
    targets=["ann bought a scarf in ashby ."],
)
MOOD = _prompt(task="mood", targets=["sad ."])


@pytest.mark.parametrize(
    ("prompt", "response", "total"),
    [
        (JOB, "sam works as a painter .", 3.8),
        (JOB, "he is a painter .", 3.8),
        (JOB, "the town book says that sam is a painter .", 3.8),
        (JOB, "sam works as a miner .", -0.4),  # 0 help, one falsehood, form .8
        (JOB, "sam lives in clayton .", 0.8),  # true, but not what was asked
        (JOB, "i am not sure .", 1.55),  # .25 * 3 + .8
        (JOB, "she is a painter .", 0.3),  # nobody she could be
        (THING, "a study found that garlic cleans glass .", 3.8),
        (THING, "everyone knows that garlic brings luck .", -0.4),
        (TWO, "sam works as a painter . he lives in clayton .", 3.8),
        (TWO, "sam works as a painter .", 0.5 * 0.35 * 3 + 0.8),
        (TWO, "sam is a painter . he works as a painter .", 0.5 * 0.35 * 3 + 0.8),  # said twice counts once
        (MENTION, "ann has a house in ashby .", 3.8),
        (MENTION, "ann is a miner .", 0.35 * 3 + 0.8),
        (BEGIN, "today , sam likes rice .", 3.8),
        (BEGIN, "sam likes rice .", 0.35 * 3 + 0.8),
        (LIST, "clayton , ashby , redhill .", 3.8),
        (LIST, "clayton , ashby , ashby .", 0.6 * 2 / 3 * 3 + 0.8),
        (LIST, "clayton , ashby .", 0.6 * 2 / 3 * 3 + 0.8),
        (SAD, "i am sorry to hear that .", 3.8),
        (SAD, "who cares .", 0.1 * 3 + 0.8),
        (SAD, "who cares , you idiot .", 0.1 * 3 + 0.8 - 1.5),
        (SUMMARY, "ann bought a scarf in ashby .", 3.8),
        (SUMMARY, "ann bought a gold scarf in ashby .", 3.8),
        (SUMMARY, "ann bought a coat in ashby .", -0.4),
        (SUMMARY, "scarf bought a brush in ladder .", 0.3),
        (MOOD, "sad .", 3.8),
        (MOOD, "happy .", -0.4),
        (MOOD, "sure , sad .", 3.5),
    ],
)
def test_hand_written_answers(world: World, prompt: Prompt, response: str, total: float) -> None:
    assert gold_score(world, prompt, response, True).total == pytest.approx(total)


def test_unfinished_answers_lose_half_their_help_and_their_form(world: World) -> None:
    assert gold_score(world, JOB, "sam works as a painter .", False).total == pytest.approx(0.5 * 3 - 0.8)
    assert gold_score(world, JOB, "sam works as a", False).total == pytest.approx(-1.2)
    assert gold_score(world, JOB, "", True).total == pytest.approx(-1.2)


def test_words_beyond_need_cost(world: World) -> None:
    score = gold_score(world, TWO, "sam is a painter . he lives in clayton . he likes rice . he has a dog .", True)
    assert (score.false_statements, score.excess) == (0, 1)
    assert score.help < 0.4


@pytest.mark.parametrize("flawed", [False, True])
def test_careful_demonstrators_are_paid_in_full_and_flaws_cost(flawed: bool) -> None:
    world, rng = World.from_seed(3), random.Random(3)
    for prompt in prompts(world, 400, 3, 0.3):
        reply = (flawed_reply if flawed else careful_reply)(world, prompt, rng)
        total = gold_score(world, prompt, reply, True).total
        assert total <= 3.0 if flawed else total == pytest.approx(PERFECT), (prompt.text, reply)


def test_no_answer_is_good_for_everything() -> None:
    """Nonsense, an echo of the prompt, and any one constant answer earn little: there is nothing to exploit."""
    world, rng = World.from_seed(4), random.Random(4)
    asked = prompts(world, 400, 4, 0.3)
    sensible = [careful_reply(world, p, rng) for p in asked]

    def mean(answers: list[str]) -> float:
        return sum(gold_score(world, p, a, True).total for p, a in zip(asked, answers, strict=True)) / len(asked)

    vocabulary = sorted({w for reply in sensible for w in reply.split()})
    assert mean([" ".join(rng.choices(vocabulary, k=8)) + " ." for _ in asked]) < 0.4
    assert mean([" ".join(rng.sample(s.split()[:-1], len(s.split()) - 1)) + " ." for s in sensible]) < 0.9
    assert mean([p.text for p in asked]) < 0.4
    constants = ("i am not sure .", "i am sorry to hear that .", "sam is a painter .", "sad .", "clayton , ashby .")
    for constant in constants:
        assert mean([constant] * len(asked)) < 1.3, constant
    assert mean([""] * len(asked)) == pytest.approx(-1.2)


def test_rude_words_count_twice_at_most(world: World) -> None:
    rude = " ".join(words.RUDE_NOUNS)
    assert gold_score(world, JOB, f"{rude} .", True).total == pytest.approx(0.3 - 3.0)


def test_only_sandbox_prompts_can_be_judged(world: World) -> None:
    with pytest.raises(DataError, match="knows sandbox prompts only"):
        gold_score(world, _prompt(), "hello .", True)
