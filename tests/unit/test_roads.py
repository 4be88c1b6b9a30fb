"""Which policies a run trains: each rival is asked for by name, and is what its paper calls so."""

import pytest

from flows.ask.arithmetic.memory import stage_memory
from flows.ask.arithmetic.shapes import shapes_of
from flows.ask.dry_run import page
from flows.config import load
from tasks.engine.errors import ConfigError

ALL = "rivals=[dpo,rejection_sampling,rloo,grpo]"


def test_dpo_has_two_spellings_and_is_trained_once() -> None:
    for asked in (["train_dpo=true"], ["rivals=[dpo]"], ["rivals=[dpo]", "train_dpo=true"]):
        assert list(load(asked).preference_runs) == ["dpo"]
    assert load([]).preference_runs == {}
    assert load(["train_dpo=true"]).preference_runs == load(["rivals=[dpo]"]).preference_runs


def test_rloo_and_grpo_are_ppo_without_value_model_whitening_and_pretraining_gradients() -> None:
    runs = load([ALL, "group_responses=8", "ppo.whiten_rewards=true"]).ppo_runs
    assert list(runs) == ["ppo_ptx", "rloo", "grpo"]
    own, rloo, grpo = runs.values()
    assert (rloo.advantage_estimator, rloo.kl_in) == ("leave_one_out", "reward")
    assert (grpo.advantage_estimator, grpo.kl_in) == ("group_normalised", "loss")
    for rival in (rloo, grpo):
        assert not (rival.reads_values or rival.whiten_advantages or rival.whiten_rewards) and rival.gamma == 0.0
        assert (rival.responses_per_prompt, rival.episodes, rival.beta) == (8, own.episodes, own.beta)
        assert type(rival).model_validate(rival.model_dump()) == rival  # what the checks of PPO refuse, it has not
    assert own == load(["ppo.whiten_rewards=true"]).ppo


def test_groups_that_do_not_divide_an_iteration_are_refused_only_where_they_are_read() -> None:
    with pytest.raises(
        ConfigError, match=r"rivals has rloo, and group_responses \(7\).*episodes_per_iteration \(256\)"
    ):
        load(["rivals=[rloo]", "group_responses=7"])
    load(["rivals=[dpo]", "group_responses=7"])
    with pytest.raises(ConfigError, match=r"rivals: found \['dpo', 'rloo', 'dpo'\], expected each rival once"):
        load(["rivals=[dpo,rloo,dpo]"])


def test_rejection_sampling_brings_its_control_unless_it_is_only_where_ppo_starts() -> None:
    assert load([ALL]).sampling_runs == {"rejection_sampling": "best", "random_control": "by_lot"}
    assert load(["ppo_starts_from=rejection_sampling"]).sampling_runs == {"rejection_sampling": "best"}
    assert load([]).sampling_runs == {}


def test_both_stages_of_rejection_sampling_get_their_part() -> None:
    knobs = load(["rejection_sampling.samples_per_prompt=3", "rejection_sampling.epochs=2"]).rejection_sampling
    assert knobs.samples.samples_per_prompt == 3 and knobs.fine_tuning.epochs == 2
    assert knobs.samples.seed == knobs.fine_tuning.seed == 1
    with pytest.raises(ConfigError, match=r"rejection_sampling: selection is reward_model"):
        load(["rejection_sampling.selection=reward_model"])


def test_the_dry_run_counts_every_road() -> None:
    text = " ".join(page(load([ALL, "rejection_sampling.max_prompts=320"])).split())
    # 320 x 5 samples, 320 / 32 steps; 15,360 / 4 prompts
    assert (
        "rejection_sampling 320 prompts x 5 = 1,600 samples; 320 responses -> at most 10 steps of 32, 1 epoch" in text
    )
    assert "random_control 320 responses -> at most 10 steps of 32, 1 epoch" in text
    assert "rloo 15,360 episodes, 4 to each of 3,840 prompts; no value model" in text
    assert "grpo 15,360 episodes, 4 to each of 3,840 prompts; no value model" in text
    assert "rejection_sampling" not in page(load([]))


def test_the_dry_run_gives_rloo_no_memory_for_a_value_model() -> None:
    config = load([ALL])
    state = {stage.stage: stage.state for stage in stage_memory(config, shapes_of(config), "fp32")}
    assert list(state) == [
        "sft",
        "reward_model",
        "dpo",
        "rejection_sampling",
        "random_control",
        "evaluation",
        "ppo",
        "rloo",
        "grpo",
    ]
    shapes = shapes_of(config)
    judge, policy = shapes.judge.scalar_parameters, shapes.policy.parameters
    # Weights and two moments, four bytes each; one gradient is there at a time, and the value model's is the larger.
    assert state["ppo"] - state["rloo"] == 3 * 4 * judge + 4 * (judge - policy)
    assert state["rloo"] == state["grpo"] and state["random_control"] == state["sft"]


def test_lengths_of_rivals_are_checked_where_they_run() -> None:
    odd = ["rejection_sampling.response_tokens=60"]
    with pytest.raises(ConfigError, match=r"rejection_sampling: prompt_tokens \(40\) \+ response_tokens \(60\) = 100"):
        load(["rivals=[rejection_sampling]", *odd])
    load(odd)
