"""Labelers agree with one another as often as people do, and read equal texts equally."""

from __future__ import annotations

import random

from tasks.sandbox.demonstrations import demonstrations
from tasks.sandbox.gold import WEIGHTS, gold_score
from tasks.sandbox.labelers import Panel
from tasks.sandbox.prompts import prompts
from tasks.sandbox.world import World

WORLD = World.from_seed(5)
PANEL = Panel.of(WORLD, 5)
ASKED = prompts(WORLD, 1_000, 5, 0.0)


def test_a_panel_is_five_and_three_and_a_function_of_its_seed() -> None:
    assert (len(PANEL.training), len(PANEL.held_out)) == (5, 3)
    assert Panel.of(WORLD, 5) == PANEL != Panel.of(WORLD, 6)
    assert len({labeler.labeler_id for labeler in PANEL.training + PANEL.held_out}) == 8


def test_every_labeler_wants_the_same_things() -> None:
    for labeler in PANEL.training + PANEL.held_out:
        assert all(mine * gold > 0 for mine, gold in zip(labeler.weights, WEIGHTS, strict=True))


def test_ranks_are_competition_ranks_and_equal_texts_tie() -> None:
    prompt = ASKED[0]
    ranks = PANEL.training[0].rank(prompt, ["", "a .", "", "b ."], [True] * 4, random.Random(1))
    assert ranks[0] == ranks[2]
    assert min(ranks) == 1
    assert max(ranks) <= 4


def test_labelers_prefer_what_gold_prefers_and_agree_as_often_as_people_do() -> None:
    """InstructGPT's labelers agree on 73 to 77 % of pairs; here pairs are demonstrations, so the range is wider."""
    rng = random.Random(2)
    agree = both = right = judged = 0
    drafts = [demonstrations(WORLD, ASKED, seed) for seed in (1, 2, 3, 4)]
    for row in zip(*drafts, strict=True):
        prompt, texts = row[0].prompt, sorted({d.response for d in row})
        if len(texts) < 2:
            continue
        a, b = rng.sample(texts, 2)
        first, second = (
            labeler.rank(prompt, [a, b], [True, True], rng)
            for labeler in rng.sample(PANEL.training + PANEL.held_out, 2)
        )
        if len(set(first)) == len(set(second)) == 2:
            both += 1
            agree += first == second
        gap = gold_score(WORLD, prompt, a, True).total - gold_score(WORLD, prompt, b, True).total
        if abs(gap) > 1e-9 and len(set(first)) == 2:
            judged += 1
            right += (gap > 0) == (first[0] < first[1])
    assert 0.68 < agree / both < 0.88
    assert right / judged > 0.8
