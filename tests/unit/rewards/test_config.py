"""The declared list of rewards: what is refused, and where."""

from typing import Any

import pytest

from flows.config import load
from tasks.engine.errors import ConfigError
from tests.shipped import shipped

OWN = "{name: own, kind: reward_model, folder: null, prompt_layout: null, spread_penalty: 0.0, weight: 1.0}"
LENGTH = "{name: length, kind: function, function: 'tests.unit.rewards.length:score', weight: 0.1}"


def rewards(*parts: str, **changes: Any) -> list[str]:
    return [f"ppo.rewards.parts=[{','.join(parts)}]", *(f"ppo.rewards.{name}={to}" for name, to in changes.items())]


def test_by_default_the_reward_is_the_reward_model() -> None:
    config = load([])
    assert config.ppo.rewards.plain and list(config.reward_model_runs) == ["reward_model"]
    assert config.measured.rewards is None and config.reads_comparisons
    assert shipped("ppo", "paper")["rewards"]["rule"] == "weights"


def test_a_function_alone_needs_no_comparisons() -> None:
    config = load([*rewards(LENGTH), "independent_reward_model=none"])
    assert config.reward_model_runs == {} and not config.reads_comparisons
    assert config.data_prep_job.data_prep.minimum_rows.comparisons == 0
    assert config.measured.rewards == config.ppo.rewards
    assert load([*rewards(LENGTH), "independent_reward_model=none", "train_dpo=true"]).reads_comparisons
    assert load(rewards(LENGTH)).reads_comparisons  # the second reward model judges


def test_members_of_an_ensemble_differ_by_seed_or_by_half() -> None:
    runs = load(["reward_ensemble=3", "reward_model.seed=10"]).reward_model_runs
    assert list(runs) == ["reward_model", "reward_model_2", "reward_model_3"]
    seeds = {run.seed for run in runs.values()} | {load(["reward_model.seed=10"]).independent_reward_model_run.seed}
    assert runs["reward_model"].seed == 10 and len(seeds) == 4
    halves = load(["reward_ensemble=2", "reward_ensemble_on=disjoint_halves"]).reward_model_runs
    assert [run.trained_on for run in halves.values()] == ["first_half", "second_half"]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (rewards(OWN, OWN), "parts are named own, own"),
        (rewards(OWN, OWN.replace("name: own", "name: other")), "two parts are the run's own reward model"),
        (rewards(OWN.replace("1.0}", "0.0}")), "every weight is 0"),
        (rewards(OWN, LENGTH, rule="gate"), "rule=gate needs both"),
        (rewards(OWN, LENGTH, guard="own"), "every other rule has both null"),
        (
            rewards(OWN, LENGTH, rule="gate", guard="safety", guard_below="0.1"),
            "guard is 'safety' and the parts are own, length",
        ),
        (rewards("{name: x, kind: gold, weight: 1}"), "of kind reward_model, function or chat"),
        (rewards("{name: x, kind: function, function: 'nothing', weight: 1}"), "expected module:function"),
        (rewards("{name: X y, kind: function, function: 'a:b', weight: 1}"), "String should match pattern"),
        (["reward_ensemble=2", *rewards(LENGTH)], "nothing reads it"),
        (["rounds=2", *rewards(LENGTH)], "no reward model learns from labels"),
        (rewards(OWN.replace("spread_penalty: 0.0", "spread_penalty: 0.5")), "one model has no spread"),
        (["reward_ensemble=3", "reward_ensemble_on=disjoint_halves"], "two halves make two members"),
        (
            ["reward_ensemble=2", "reward_ensemble_on=disjoint_halves", "independent_reward_model=disjoint_half"],
            "gives all comparisons away",
        ),
        (rewards(OWN.replace("prompt_layout: null", "prompt_layout: 'Q {prompt}'")), "reads what the policy reads"),
    ],
)
def test_what_does_not_fit(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(overrides)
    assert sentence in str(refused.value)
