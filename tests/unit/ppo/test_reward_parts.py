"""PPO on a declared list of rewards."""

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.language.models import ScalarModel
from tasks.ppo.learner import PPOLearner
from tasks.ppo.reward_parts import value_model_without_reward_model
from tasks.ppo.rollout import Networks
from tasks.rewards.rewards import Answered, Rewards, Scored
from tests.unit.ppo import tiny
from tests.unit.ranks import on_ranks
from tests.unit.tiny_models import weights_of

OWN = {
    "name": "own",
    "kind": "reward_model",
    "folder": None,
    "prompt_layout": None,
    "spread_penalty": 0.0,
    "weight": 1.0,
}
REDS = {"name": "reds", "kind": "function", "function": f"{__file__}:count_red", "weight": 1.0}


def count_red(prompts: list[str], responses: list[str]) -> list[float]:
    return [response.split().count("red") - 0.1 * len(response.split()) for response in responses]


def one_each(prompts: list[str], responses: list[str]) -> list[float]:
    return [1.0] * len(responses)


def fickle(prompts: list[str], responses: list[str]) -> list[float]:
    """Other numbers every time."""
    return [random.random() for _ in responses]


def learner(
    *parts: dict[str, Any], models: int = 1, listed: bool = True, value_model: ScalarModel | None = None, **changes: Any
) -> PPOLearner:
    rule = {"rule": "weights", "guard": None, "guard_below": None} | changes.pop("rules", {})
    config = tiny.config(**changes, rewards={"parts": list(parts), **rule})
    networks = tiny.networks()
    assert networks.reward_model is not None
    own = [copy.deepcopy(networks.reward_model) for _ in range(models)]
    for place, member in enumerate(own):
        with torch.no_grad():
            member.score_bias += place  # members differ
    reward_model = networks.reward_model if config.rewards.own else None
    networks = Networks(networks.policy, networks.reference, reward_model, value_model or networks.value_model)
    given = own if config.rewards.own else []
    rewards = Rewards(config.rewards, given, tiny.tokenizer().pad_token_id, tiny.RUNTIME) if listed else None
    return PPOLearner(
        networks, tiny.tokenizer(), tiny.prompts(), tiny.documents(), config, tiny.runtime(debug=False), rewards
    )


def test_the_reward_model_alone_is_what_it_was_bit_for_bit() -> None:
    plain, listed = learner(OWN, listed=False), learner(OWN)
    before, after = plain.step(), listed.step()
    assert {name: value for name, value in after.items() if not name.startswith("reward/")} == before
    assert all(
        torch.equal(weights_of(plain.networks.policy)[n], w) for n, w in weights_of(listed.networks.policy).items()
    )
    assert after["reward/own"] == pytest.approx(float(listed.last_rollout.raw_score.mean()))  # type: ignore[union-attr]


def test_a_function_alone_is_optimised(tmp_path: Path) -> None:
    tiny.policy().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    value_model = value_model_without_reward_model(tmp_path, "cpu")
    assert torch.equal(value_model.head.weight, torch.zeros_like(value_model.head.weight))
    trained = learner(
        REDS,
        value_model=value_model,
        gamma=0.0,
        beta=0.0,
        missing_eos="none",
        episodes=640,
        episodes_per_iteration=64,
        minibatch_size=16,
        warmup_iterations=0,
        policy_adam=tiny.settings()["policy_adam"] | {"learning_rate": 3e-3},
    )
    found = [trained.step() for _ in range(8)]
    assert trained.networks.reward_model is None
    samples = trained.samples(64)
    expected = count_red([], [sample.response for sample in samples])
    assert trained.last_rollout is not None
    assert trained.last_rollout.raw_score.tolist() == pytest.approx(expected)
    assert found[0]["reward/reds"] == pytest.approx(found[0]["objective/score"])
    assert found[-1]["reward/reds"] > found[0]["reward/reds"] + 0.2


def test_parts_add_up_and_each_is_tracked() -> None:
    found = learner(OWN, REDS | {"weight": 0.5}, missing_eos="none").step()
    assert found["objective/score"] == pytest.approx(found["reward/own"] + 0.5 * found["reward/reds"], abs=1e-6)
    assert found["reward/reds_std"] > 0


def test_a_guard_that_always_decides() -> None:
    gate = {"rule": "gate", "guard": "reds", "guard_below": 100.0}
    found = learner(OWN, REDS, rules=gate, missing_eos="none").step()
    assert found["reward/guarded_share"] == 1.0
    assert found["objective/score"] == pytest.approx(found["reward/reds"])


def asked(parts: list[dict[str, Any]], **rules: Any) -> Scored:
    """Of two responses with one red and with none, by parts that are functions."""
    config = tiny.config(
        rewards={"parts": parts, "rule": "weights", "guard": None, "guard_below": None} | rules
    ).rewards
    given = Answered(tiny.prompts(2), ["red", "the"], [True] * 2, [[3]] * 2, [[9], [7]])
    return Rewards(config, [], 0, tiny.RUNTIME)(given)


def test_a_guard_counts_by_its_weight_where_its_own_score_is_below_the_limit() -> None:
    ones = {"name": "ones", "kind": "function", "function": f"{__file__}:one_each", "weight": 1.0}
    # reds are 0.9 and -0.1
    found = asked([ones, REDS | {"weight": 3.0}], rule="gate", guard="reds", guard_below=0.5)
    assert found.total.tolist() == pytest.approx([1.0, -0.3]) and found.figures["reward/guarded_share"] == 0.5
    assert found.figures["reward/reds_std"] == pytest.approx(0.5)
    at_it = asked([REDS, ones | {"weight": 3.0}], rule="gate", guard="ones", guard_below=1.0)  # and nothing is below
    assert at_it.total.tolist() == pytest.approx([0.9, -0.1]) and at_it.figures["reward/guarded_share"] == 0.0


def test_a_function_is_asked_by_one_rank_and_all_hear_what_it_said() -> None:
    fickle = {"name": "fickle", "kind": "function", "function": f"{__file__}:fickle", "weight": 1.0}
    first, second = on_ranks(2, lambda: asked([fickle]).total.tolist())
    assert first == second


def test_an_ensemble_pays_for_its_spread() -> None:
    """The second member's scores lie one point below the first's: mean -0.5, standard deviation 0.5."""
    alone = learner(OWN, missing_eos="none").step()
    both = learner(OWN | {"spread_penalty": 0.4}, models=2, missing_eos="none").step()
    assert both["reward/disagreement"] == pytest.approx(0.5, abs=1e-6)
    assert both["objective/score"] == pytest.approx(alone["objective/score"] - 0.5 - 0.4 * 0.5, abs=1e-5)
