"""Whole iterations against their retelling, under every setting that changes what a number means."""

import copy
from typing import Any

import pytest
import torch

from tests.unit.ppo import tiny
from tests.unit.ppo.retold import RetoldRun
from tests.unit.ppo.tiny import EOS

BASE: dict[str, Any] = {"discount": 0.97, "beta": 0.1, "policy_clip": 0.02, "value_clip": 0.01, "seed": 2}
AFTER: dict[str, Any] = {"score_position": "after_eos"}
LAST: dict[str, Any] = {"score_position": "last_position"}
UNBIASED: dict[str, Any] = {"whiten_rewards": True, "whitening_variance": "unbiased"}
STEERED: dict[str, Any] = {"kl_controller": "adaptive", "kl_target": 0.05, "kl_horizon": 40.0}


def groups(estimator: str, size: int, **changes: Any) -> dict[str, Any]:
    return {"advantage_estimator": estimator, "responses_per_prompt": size, "whiten_advantages": False} | changes


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "whitened rewards": {"whiten_rewards": True},
    "after EOS": AFTER,
    "after EOS, whitened rewards": AFTER | {"whiten_rewards": True, "temperature": 0.7},
    "after EOS, unbiased": AFTER | UNBIASED,
    "last position": LAST,
    "last position, whitened rewards": LAST | UNBIASED | {"missing_eos": "minimum", "missing_eos_score": -0.2},
    "unbiased": UNBIASED,
    "unbiased advantages": {"whitening_variance": "unbiased"},
    "nothing whitened": {"whiten_advantages": False},
    "missing EOS subtracts": {"missing_eos": "subtract", "missing_eos_score": -0.7},
    "missing EOS caps": {"missing_eos": "minimum", "missing_eos_score": -0.1},
    "missing EOS counts for nothing": {"missing_eos": "none"},
    "two inner epochs": {"inner_epochs": 2, "minibatch_size": 4},
    "two inner epochs, after EOS, plain PPO": AFTER | {"inner_epochs": 2, "gamma": 0.0},
    "sampled log-probabilities": {"old_logprobs": "sampled", "temperature": 0.8},
    "sampled log-probabilities, after EOS": AFTER | {"old_logprobs": "sampled"},
    "sampled log-probabilities, last position": LAST | {"old_logprobs": "sampled"},
    "temperature": {"temperature": 0.7},
    "steered beta": STEERED | {"kl_target": 11.0},  # near what is measured, so that the error is not cut
    "steered beta in the loss": STEERED | {"kl_in": "loss"},
    "groups of four with values": {"responses_per_prompt": 4},
    "leave one out": groups("leave_one_out", 4),
    "leave one out, whitened": groups("leave_one_out", 8, whiten_advantages=True, whiten_rewards=True, **AFTER),
    "group normalised, KL in the loss": groups("group_normalised", 4, kl_in="loss", inner_epochs=2),
    "group normalised, KL in the reward": groups("group_normalised", 2, temperature=0.7, **AFTER),
    "no pretraining": {"gamma": 0.0},
    "rows of pretraining": {"ptx_reduction": "row_sum", "gamma": 0.3, "ptx_examples_per_episode": 3},
    "average per iteration": {"ema_every": "iteration", "ema_decay": 0.7},
    "no warm-up": {"warmup_iterations": 0},
    "lambda and discount of one": {"gae_lambda": 1.0, "discount": 1.0},
    "lambda of zero": {"gae_lambda": 0.0},
    "wide clips": {"policy_clip": 0.9, "value_clip": 50.0},
    "TensorFlow's epsilon and decay": {"adam": {"epsilon_placement": "before_correction", "weight_decay": 0.1}},
    "clipped norms": {"policy_adam": {"max_grad_norm": 0.05}, "value_adam": {"max_grad_norm": 0.02}},
    "one micro-batch": AFTER | {"tokens_per_microbatch": 10_000},
}

TWICE = (
    "plain",
    "steered beta",
    "steered beta in the loss",
    "two inner epochs",
    "average per iteration",
    "clipped norms",
)
"""What one iteration leaves to the next is told twice over."""


def knobs_of(setting: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The YAML's values, changed; and the micro-batch, small unless the setting names one."""
    changes = dict(setting)
    budget, adam = changes.pop("tokens_per_microbatch", 40), changes.pop("adam", {})
    # Adam moves a weight by learning_rate / epsilon times a rounding error where its gradient is about epsilon
    rates = {"policy_adam": {"learning_rate": 0.01}, "value_adam": {"learning_rate": 0.01}}
    optimizers = {
        name: tiny.shipped("sandbox")[name] | {"epsilon": 1e-4} | rate | adam | changes.pop(name, {})
        for name, rate in rates.items()
    }
    return tiny.settings(**BASE | changes | optimizers), budget


def test_pretraining_rows_are_the_documents_one_behind_another_each_closed_by_eos() -> None:
    cursor = tiny.learner(ptx_row_tokens=8).ptx_cursor
    words = [[*(tiny.WORDS.index(word) for word in document.text.split()), EOS] for document in tiny.documents()]
    stream = [token for document in words for token in document]
    assert cursor is not None
    assert cursor.rows.tolist() == [stream[start : start + 8] for start in range(0, len(stream) - 7, 8)]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.point(32, 42, 43, 56)
def test_an_iteration_against_its_retelling(name: str) -> None:
    knobs, budget = knobs_of(SETTINGS[name])
    # a reference of its own makes the KL matter from the start; small micro-batches make reductions matter
    run = tiny.learner(reference_seed=3, runtime_changes={"tokens_per_microbatch": budget}, **knobs)
    retold, met = RetoldRun(run.networks, knobs), set[Any]()
    for _ in range(2 if name in TWICE else 1):
        choices, ptx = torch.Generator(), copy.deepcopy(run.ptx_cursor)
        choices.set_state(run.minibatching.get_state())
        found = run.step()
        assert run.last_episodes is not None
        pairs = list(zip(run.last_episodes.prompts, run.last_episodes.responses, strict=True))
        met |= {(EOS in response, len(response)) for _, response in pairs}
        orders = [torch.randperm(16, generator=choices).tolist() for _ in range(knobs["inner_epochs"])]
        steps = knobs["inner_epochs"] * 16 // knobs["minibatch_size"]
        count = knobs["ptx_examples_per_episode"] * knobs["minibatch_size"]
        told = retold.iterate(pairs, orders, [ptx.draw(count).tolist() for _ in range(steps)] if ptx else [])
        assert found.keys() == told.keys()
        assert found == pytest.approx(told, rel=2e-4, abs=2e-5)
        assert retold.policy.distance(run.networks.policy) < 1e-5
        if retold.critic is not None:
            assert retold.critic.distance(run.networks.value_model) < 1e-5
        for path, weight in run.final_policy().named_parameters():
            torch.testing.assert_close(weight.double(), retold.average[path], atol=1e-5, rtol=0)
    assert {ended for ended, _ in met} == {True, False} and (
        len({length for _, length in met}) > 2 or knobs["score_position"] == "last_position"
    )
    if knobs["policy_clip"] == BASE["policy_clip"]:
        assert told["policy/clip_fraction"] > 0 and told.get("value/clip_fraction", 1) > 0
