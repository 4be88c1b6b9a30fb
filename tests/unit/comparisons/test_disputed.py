"""Which responses two reward models dispute; the stage that keeps them, with reward models that it can tell apart."""

from pathlib import Path
from typing import Any

import pytest
import torch

from flows.config import load
from tasks.comparisons import sample_responses
from tasks.comparisons.config import SamplingConfig
from tasks.comparisons.disputed import disputed_share, most_disputed, overrated, scores_of
from tasks.comparisons.drawn import read_drawn
from tasks.comparisons.job import SamplingJob
from tasks.comparisons.sample import Candidates
from tasks.engine.artifacts import ArtifactRef
from tasks.engine.caching import as_task
from tasks.engine.context import StageName
from tasks.engine.errors import ConfigError
from tasks.language.models import ScalarModel
from tasks.language.scorer import score_rows
from tests.unit import tiny_models as tiny
from tests.unit.comparisons.labelers.asked import config
from tests.unit.comparisons.test_stages import SMALL, House
from tests.unit.run.test_rounds import walked


def test_gaps_are_in_each_models_own_standard_deviations() -> None:
    # Standard deviations over all four: 10 (20, 0, 0, 20) and 0.5 (1, 1, 0, 0).
    assert overrated([[20.0, 0.0], [0.0, 20.0]], [[1.0, 1.0], [0.0, 0.0]]) == [[0.0, -2.0], [0.0, 2.0]]
    assert overrated([[3.0, 3.0]], [[0.0, 2.0]]) == [
        [3.0, 1.0]
    ]  # a model that tells nothing apart counts by its level alone


@pytest.mark.parametrize(
    ("count", "places"), [(2, [1, 4]), (3, [1, 3, 4]), (4, [0, 1, 3, 4]), (5, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4])]
)
def test_both_ends_are_kept_in_the_order_they_were_drawn(count: int, places: list[int]) -> None:
    assert most_disputed([-1.0, -5.0, 0.0, 2.0, 7.0], count) == places
    assert most_disputed([0.0] * 4, 3) == [0, 1, 3]  # of equals the first


def test_a_pair_is_disputed_where_the_models_order_it_in_opposite_ways() -> None:
    # Of the first prompt's three pairs only (2, 3) against (3, 1); a tie disputes nothing; the second prompt agrees.
    assert disputed_share([[1.0, 2.0, 3.0], [1.0, 2.0]], [[0.0, 3.0, 1.0], [1.0, 2.0]]) == pytest.approx(1 / 4)
    assert disputed_share([[1.0, 1.0]], [[0.0, 3.0]]) == 0.0


def reward_model(seed: int) -> ScalarModel:
    return ScalarModel.from_policy(tiny.policy(seed), torch.Generator().manual_seed(seed)).eval()


def test_scores_are_those_of_the_tokens_that_were_drawn() -> None:
    model, tokenizer, limits = reward_model(0), tiny.tokenizer(), config(**SMALL)
    texts = (["red cat", "big blue cat"], [True, False]), (["the cat is red", "small"], [False, True])
    given = [Candidates(prompt, *drawn) for prompt, drawn in zip(tiny.prompts(2), texts, strict=True)]
    found = scores_of(model, given, tokenizer, limits, tiny.runtime())
    for one, scores in zip(given, found, strict=True):
        asked = tokenizer(one.prompt.text, add_special_tokens=False)["input_ids"]
        for text, finished, score in zip(one.completions, one.finished, scores, strict=True):
            said = tokenizer(text, add_special_tokens=False)["input_ids"] + [tiny.EOS] * finished
            assert [score] == pytest.approx(score_rows(model, [asked], [said], 0, tiny.runtime()))


class Disputed(House):
    """The house with two reward models."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.judges = {
            name: self._put(name, lambda folder, seed=seed: reward_model(seed).save(folder / "model"))
            for seed, name in enumerate(("optimised", "held_out"))
        }

    def drawn(self, **changes: Any) -> tuple[dict[str, list[Candidates]], dict[str, float]]:
        knobs = config(**(SMALL | {"prompts_from": "rl_prompts", "completions_max": 4} | changes))
        job = SamplingJob(sampling=knobs.part(SamplingConfig), round=2, policy="ppo, round 1")
        name = StageName(group="candidates", about="round_2")
        made = as_task(sample_responses).fn(name, job, self.context, self._inputs() | self.judges)
        assert isinstance(made, ArtifactRef)
        manifest = self.store.manifest(made.stage, made.fingerprint)
        assert manifest is not None
        return read_drawn(self.store.open(made)), dict(manifest.metrics)


def test_the_stage_keeps_what_its_two_reward_models_dispute(tmp_path: Path) -> None:
    house = Disputed(tmp_path)
    knobs = {"completions_min": 4, "completions_max": 4}
    everything, _ = house.drawn(completions_min=12, completions_max=12)  # as many as are selected from
    kept, metrics = house.drawn(selection="adversarial", selected_from=12, **knobs)
    limits = config(**SMALL)
    scores = [
        scores_of(reward_model(seed), everything["train"], tiny.tokenizer(), limits, tiny.runtime()) for seed in (0, 1)
    ]
    assert [len(one.completions) for one in everything["train"]] == [12] * 4  # or the places below would be others
    for one, selected, gaps in zip(everything["train"], kept["train"], overrated(*scores), strict=True):
        order = sorted(range(12), key=lambda place: gaps[place])
        assert selected.prompt == one.prompt
        assert selected.completions == [one.completions[place] for place in sorted(order[:2] + order[-2:])]
    assert metrics["candidates/disputed_drawn"] == pytest.approx(disputed_share(*scores))
    assert metrics["candidates/disputed_kept"] > metrics["candidates/disputed_drawn"]
    plain, without = house.drawn(**knobs)
    assert kept["valid"] == plain["valid"] and kept["train"] != plain["train"]
    assert "candidates/disputed_drawn" not in without


def test_the_second_round_asks_the_first_rounds_reward_models() -> None:
    found = walked("rounds=3", "comparisons.selection=adversarial")
    assert "candidates" not in found.inputs and found.configs["comparisons"].comparisons.selection == "random"
    assert found.inputs["candidates-round_3"] == {
        "data": "data_prep",
        "policy": "ppo_ptx-round_2",
        "optimised": "reward_model-round_2",
        "held_out": "reward_model-independent-round_2",
    }
    assert found.inputs["comparisons-round_2"]["candidates"] == "candidates-round_2"
    people = walked("rounds=2", "comparisons.selection=adversarial", "comparisons.labelers=[people]")
    assert people.inputs["candidates"] == {"data": "data_prep", "policy": "sft"}


def test_the_first_round_does_not_depend_on_what_later_ones_select() -> None:
    plain, adversarial = (load(["rounds=2", f"comparisons.selection={how}"]) for how in ("random", "adversarial"))
    jobs = [(one.comparisons_job, one.sampling_job) for one in (plain, adversarial)]
    for first, second in zip(*jobs, strict=True):
        assert first(1).fingerprint_fields() == second(1).fingerprint_fields()
        assert first(2).fingerprint_fields() != second(2).fingerprint_fields()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["rounds=1"], "which counts from the second round on, and rounds is 1"),
        (["rounds=2", "independent_reward_model=none"], "asks the independent reward model, and independent_reward"),
        (["rounds=2", "comparisons.selected_from=9"], r"selected_from \(9\) must exceed completions_max \(9\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_selected_is_refused(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load(["comparisons.selection=adversarial", "evaluation.gate.judge=gold", *overrides])
