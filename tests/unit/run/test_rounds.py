"""The order of the stages over rounds, walked with a recorder in place of a pipeline; and what counts as the last round."""

from typing import Any

import pytest

from flows.config import RLHFConfig, load
from flows.instructgpt import instructgpt
from flows.run.rounds import of_every_round, of_last_round
from tasks.engine.errors import ConfigError


class Recorder:
    """Calls of stages: name -> inputs, each named by the stage that made it."""

    def __init__(self) -> None:
        self.inputs: dict[str, dict[str, str]] = {}
        self.configs: dict[str, Any] = {}

    def __call__(self, task: Any, group: str, config: Any, about: str = "", **inputs: str) -> str:
        stage = f"{group}-{about}" if about else group
        assert stage not in self.inputs, f"{stage} is called for twice"
        self.inputs[stage], self.configs[stage] = inputs, config
        return stage


def walked(*overrides: str) -> Recorder:
    recorder = Recorder()
    config: RLHFConfig = load([*overrides])
    instructgpt(config, recorder)
    return recorder


def test_one_round_is_the_pipeline_as_it_was() -> None:
    stages = list(walked().inputs)
    assert not [stage for stage in stages if "round" in stage or stage == "candidates"]
    assert stages[4:8] == ["comparisons", "reward_model", "reward_model-independent", "ppo_ptx"]
    assert "start" not in walked().inputs["ppo_ptx"]


def test_a_start_that_is_trained_like_sft_is_sft() -> None:
    inputs = walked("ppo_init.epochs=${sft.epochs}", "ppo_init.pretraining_fraction=0", "train_dpo=true").inputs
    assert "ppo_init" not in inputs and "evaluation-ppo_init" not in inputs
    assert (
        inputs["ppo_ptx"]["ppo_init"] == inputs["dpo"]["ppo_init"] == inputs["evaluation-ppo_ptx"]["reference"] == "sft"
    )
    assert inputs["evaluation"]["ppo_init"] == inputs["evaluation"]["sft"] == "evaluation-sft"
    other = walked("ppo_init.epochs=${sft.epochs}", "ppo_init.pretraining_fraction=0", "ppo_init.seed=2").inputs
    assert other["ppo_ptx"]["ppo_init"] == "ppo_init"


def test_a_later_round_goes_on_from_the_one_before() -> None:
    found = walked("rounds=3")
    inputs = found.inputs
    assert inputs["comparisons"]["policy"] == "sft" and "earlier" not in inputs["comparisons"]
    assert inputs["comparisons-round_2"] == {
        "data": "data_prep",
        "policy": "ppo_ptx",
        "earlier": "comparisons",
        "world": "data_prep",
    }
    assert inputs["comparisons-round_3"]["policy"] == "ppo_ptx-round_2"
    assert inputs["comparisons-round_3"]["earlier"] == "comparisons-round_2"
    assert inputs["reward_model-round_3"] == {"data": "data_prep", "comparisons": "comparisons-round_3", "sft": "sft"}
    assert inputs["reward_model_before-round_3"]["reward_model"] == "reward_model-round_2"
    assert inputs["reward_model_before-round_3"]["comparisons"] == "comparisons-round_3"
    ppo = inputs["ppo_ptx-round_3"]
    assert (ppo["start"], ppo["ppo_init"], ppo["reward_model"]) == (
        "ppo_ptx-round_2",
        "ppo_init",
        "reward_model-round_3",
    )
    assert ppo["independent_reward_model"] == "reward_model-independent-round_3"
    # What is reported is the last round's, and every round is judged by the last reward model.
    assert inputs["evaluation-ppo_ptx"]["policy"] == "ppo_ptx-round_3"
    assert inputs["evaluation-ppo_ptx_round_1"]["policy"] == "ppo_ptx"
    assert inputs["evaluation-ppo_ptx_round_1"]["reward_model"] == "reward_model-round_3"
    assert inputs["rounds"]["sheet_3"] == "evaluation-ppo_ptx"
    seeds = [found.configs[f"ppo_ptx{of}"].seed for of in ("", "-round_2", "-round_3")]
    assert len(set(seeds)) == 3
    last = of_last_round({stage: stage for stage in inputs})
    assert (last["reward_model"], last["reward_model-independent"]) == (
        "reward_model-round_3",
        "reward_model-independent-round_3",
    )
    assert (last["ppo_ptx"], last["evaluation-ppo_ptx"]) == ("ppo_ptx-round_3", "evaluation-ppo_ptx")


def test_every_ppo_run_goes_on_from_itself() -> None:
    inputs = walked("rounds=2", "plain_ppo=true").inputs
    assert inputs["ppo-round_2"]["start"] == "ppo" and inputs["ppo_ptx-round_2"]["start"] == "ppo_ptx"
    assert inputs["comparisons-round_2"]["policy"] == "ppo_ptx"


def test_labelers_who_come_later_rank_responses_that_are_kept() -> None:
    inputs = walked("rounds=2", "comparisons.labelers=[people,simulated]").inputs
    assert inputs["candidates"]["policy"] == "sft" and inputs["candidates-round_2"]["policy"] == "ppo_ptx"
    assert inputs["comparisons-round_2"] == {
        "data": "data_prep",
        "candidates": "candidates-round_2",
        "earlier": "comparisons",
        "world": "data_prep",
    }


def test_given_rankings_have_one_round_and_simulated_labelers_one_world(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match=r"rounds is 2 and comparisons\.source is given"):
        load(["rounds=2", "comparisons.source=given"])
    own = ["experiment=own_data", f"data_prep.folder={tmp_path}", "model.name_or_path=gpt2"]
    with pytest.raises(ConfigError, match=r"labelers contains simulated, who exist in the embedded world only"):
        load([*own, "comparisons.source=sample_and_label", "comparisons.labelers=[simulated]"])
    sampled = load([*own, "comparisons.source=sample_and_label"])
    assert sampled.comparisons.labelers == ["people"] and sampled.comparisons.prompts_from == "rl_prompts"
    needed = [config.data_prep_job.data_prep.minimum_rows.comparisons for config in (sampled, load(own))]
    assert needed == [0, 1]
    with pytest.raises(ConfigError, match=r"labelers contains chat and chat\.model is not given"):
        load([*own, "comparisons.source=sample_and_label", "comparisons.labelers=[chat,people]"])


def test_the_last_round_is_the_highest_number_wherever_it_is_listed() -> None:
    """MLflow lists a run's stages in the order of their times, a later round before an earlier one where it was found."""
    made = {"ppo_ptx-round_10": 10, "ppo_ptx-round_9": 9, "sft": 0, "ppo_ptx": 1, "reward_model_before-round_2": 2}
    assert of_last_round(made) == {"ppo_ptx": 10, "sft": 0, "reward_model_before": 2}
    assert list(of_every_round(made, ["ppo_ptx"])) == ["ppo_ptx", "ppo_ptx-round_9", "ppo_ptx-round_10"]
