"""Sampling, labelling and given rankings."""

from collections import Counter
from typing import Any

import pytest
import torch

from tasks.comparisons.collect import Collected, collect, draw, take_given
from tasks.comparisons.config import ComparisonsConfig
from tasks.comparisons.label import assign_labelers
from tasks.comparisons.labelers.simulated import SimulatedLabelers
from tasks.comparisons.sample import Candidates, completions_per_prompt, distinct, sample_candidates
from tasks.engine.errors import DataError
from tasks.records.records import Comparison
from tasks.sandbox.labelers import Panel
from tasks.sandbox.prompts import prompts as sandbox_prompts
from tasks.sandbox.world import World
from tests.unit import tiny_models as tiny

SMALL: dict[str, Any] = {"max_prompts": 25, "max_valid_prompts": 12, "agreement_prompts": 6, "response_tokens": 6}


def config(**changes: Any) -> ComparisonsConfig:
    return ComparisonsConfig.model_validate(tiny.settings("comparisons", **(SMALL | changes)))


@pytest.fixture(scope="module")
def world() -> World:
    return World.from_seed(3)


@pytest.fixture(scope="module")
def panel(world: World) -> Panel:
    return Panel.of(world, config().seed)


@pytest.fixture(scope="module")
def collected(world: World, panel: Panel) -> Collected:
    return collect_in(world, panel)


def collect_in(world: World, panel: Panel) -> Collected:
    prompts = sandbox_prompts(world, 60, 5, 0.2)
    drawn = draw(tiny.policy(), tiny.tokenizer(), prompts[:40], prompts[40:], config(), tiny.runtime(), 7)
    hired = {"simulated": SimulatedLabelers(panel, 7)}
    return collect(drawn, hired, str, world, config(), 7)


def test_k_is_uniform_between_its_bounds() -> None:
    counts = Counter(completions_per_prompt(6000, config(), seed=1))
    assert sorted(counts) == [4, 5, 6, 7, 8, 9]
    assert all(900 < count < 1100 for count in counts.values())


def test_identical_responses_are_dropped_and_order_is_kept() -> None:
    prompt = tiny.prompts(1)[0]
    found = distinct(Candidates(prompt, ["b", "a", "b", "a", "c"], [True, True, True, False, True]))
    assert found == Candidates(prompt, ["b", "a", "a", "c"], [True, True, False, True])


def test_samples_are_distinct_and_follow_the_seed() -> None:
    def drawn(seed: int) -> list[Candidates]:
        return sample_candidates(tiny.policy(), tiny.tokenizer(), tiny.prompts(20), config(), tiny.runtime(), seed)

    first = drawn(1)
    assert first == drawn(1) != drawn(2)
    assert {item.prompt.prompt_id for item in first} <= {prompt.prompt_id for prompt in tiny.prompts(20)}
    for item in first:
        pairs = list(zip(item.completions, item.finished, strict=True))
        assert 2 <= len(pairs) == len(set(pairs)) <= 9
    ended = [ended for item in first for ended in item.finished]
    assert any(ended) and not all(ended)


def test_prompts_with_a_single_response_are_left_out() -> None:
    silent = tiny.policy()
    with torch.no_grad():
        silent.model.norm.weight.mul_(50)  # a policy that says the same every time
    prompts = tiny.prompts(5)
    assert sample_candidates(silent, tiny.tokenizer(), prompts, config(temperature=1e-3), tiny.runtime(), 1) == []


def test_every_labeler_ranks_equally_many_prompts(panel: Panel) -> None:
    assigned = [labeler.labeler_id for labeler in assign_labelers([None] * 52, panel.training, 1)]
    assert sorted(Counter(assigned).values()) == [10, 10, 10, 11, 11]
    assert assigned[:-5] != assigned[5:]  # not simply in turn


def test_panels_never_mix(collected: Collected, panel: Panel) -> None:
    training = {labeler.labeler_id for labeler in panel.training}
    held_out = {labeler.labeler_id for labeler in panel.held_out}
    by = {name: {item.labeler_id for item in comparisons} for name, comparisons in collected.sets.items()}
    assert by["train"] == training and by["valid"] <= training
    assert by["valid_heldout_labelers"] == held_out
    assert by["valid_gold"] == {"gold"}


def test_validation_sets_rank_the_same_responses(collected: Collected) -> None:
    def shown(name: str) -> list[tuple[str, list[str]]]:
        return [(item.prompt.prompt_id, item.completions) for item in collected.sets[name]]

    assert shown("valid") == shown("valid_heldout_labelers") == shown("valid_gold")
    trained = {item.prompt.prompt_id for item in collected.sets["train"]}
    assert not trained & {prompt_id for prompt_id, _ in shown("valid")}
    assert len(collected.sets["train"]) <= 25 and len(collected.sets["valid"]) <= 12
    assert all(item.source_policy == ["sft"] * len(item.completions) for item in collected.sets["train"])


def test_agreement_is_measured(collected: Collected) -> None:
    for name in ("training_labelers", "heldout_labelers", "training_with_gold", "heldout_with_gold"):
        assert 0.0 <= collected.metrics[f"agreement/{name}"] <= 1.0
    assert collected.metrics["comparisons/train"] == len(collected.sets["train"])


def test_collecting_again_gives_the_same(collected: Collected, world: World, panel: Panel) -> None:
    assert collect_in(world, panel) == collected


def given(names: list[str], prefix: str) -> list[Comparison]:
    return [
        Comparison(
            prompt=prompt.model_copy(update={"prompt_id": f"{prefix}{prompt.prompt_id}"}),
            completions=["red", "blue"],
            ranks=[1, 2],
            labeler_id=names[index % len(names)],
        )
        for index, prompt in enumerate(tiny.prompts(20))
    ]


def test_given_rankings_of_held_out_labelers_are_not_trained_on() -> None:
    names = ["ann", "bob", "cat", "dan", "eve"]
    found = take_given(
        given(names, "t"), given([*names, "new"], "v"), config(held_out_labeler_share=0.2, max_valid_prompts=400)
    )
    trained = {item.labeler_id for item in found.sets["train"]}
    assert len(trained) == 4
    assert {item.labeler_id for item in found.sets["valid"]} == trained
    assert {item.labeler_id for item in found.sets["valid_heldout_labelers"]} == {*names, "new"} - trained
    assert sum(len(comparisons) for comparisons in found.sets.values()) == 16 + 20


def test_a_single_labeler_is_never_held_out() -> None:
    found = take_given(given(["ann"], "t"), given(["ann"], "v"), config(held_out_labeler_share=0.9))
    assert sorted(found.sets) == ["train", "valid"]
    assert "agreement/labelers" not in found.metrics


def test_missing_data_is_named() -> None:
    with pytest.raises(DataError, match="the train split holds no comparisons"):
        take_given([], given(["ann"], "v"), config())
    with pytest.raises(DataError, match="none of 0 prompts got two different responses"):
        draw(tiny.policy(), tiny.tokenizer(), [], [], config(), tiny.runtime(), 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"completions_min": 5, "completions_max": 4}, r"completions_min \(5\) must not exceed completions_max \(4\)"),
        ({"agreement_prompts": 13}, r"agreement_prompts \(13\) must not exceed max_valid_prompts \(12\)"),
    ],
)
def test_knobs_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)
