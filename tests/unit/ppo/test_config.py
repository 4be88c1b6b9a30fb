"""The real YAML files load; impossible settings are refused with both numbers."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.ppo.config import PPOConfig
from tests.unit.ppo import tiny

GROUPS: dict[str, object] = {"responses_per_prompt": 4}
SOURCES = Path(__file__).parents[3] / "tasks" / "ppo"


@pytest.mark.parametrize("name", ["sandbox", "paper"])
def test_shipped_settings_are_valid_and_explained(name: str) -> None:
    lines = (tiny.CONF / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    for line in lines:
        if re.match(r"\s*\w+: .", line) and not line.startswith(("seed:", "defaults:")):
            assert " # " in line, f"{name}.yaml: no source for {line!r}"
    PPOConfig.model_validate(tiny.shipped(name))


@pytest.mark.point(53)
def test_the_paper_s_settings() -> None:
    config = PPOConfig.model_validate(tiny.shipped("paper"))
    assert (config.beta, config.gamma, config.discount, config.policy_clip) == (0.02, 27.8, 1.0, 0.2)
    assert (config.policy_adam.beta1, config.policy_adam.beta2, config.value_adam.learning_rate) == (0.9, 0.95, 9e-6)
    assert (config.warmup_iterations, config.warmup_start, config.ema_decay) == (10, 0.1, 0.992)
    assert (config.kl_controller, config.inner_epochs, config.temperature) == ("fixed", 1, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"old_logprobs": "sampled", "rollout_engine": "vllm"}, "old_logprobs=sampled .* rollout_engine is vllm"),
        ({"minibatch_size": 5}, r"minibatch_size \(5\) must divide episodes_per_iteration \(16\)"),
        ({"episodes": 40}, r"episodes \(40\) must be a multiple of episodes_per_iteration \(16\)"),
        (
            {"whiten_rewards": True, "episodes": 64, "episodes_per_iteration": 4, "minibatch_size": 4},
            "at least 8, found 4",
        ),
        ({"responses_per_prompt": 3}, r"responses_per_prompt \(3\) must divide episodes_per_iteration \(16\)"),
        ({"advantage_estimator": "leave_one_out"}, "responses_per_prompt is 1; set at least 2"),
        (
            {"kl_controller": "adaptive", "kl_horizon": 3.2},  # 0.2 * 16: the first value that is too short
            r"kl_horizon \(3\.2\) must be above 0\.2 \* episodes_per_iteration \(16\) = 3\.2",
        ),
        ({"kl_controller": "adaptive", "beta": 0.0}, "beta is 0 and kl_controller is adaptive"),
        (
            GROUPS | {"advantage_estimator": "group_normalised", "whiten_advantages": True},
            "whiten_advantages would divide a second time; set whiten_advantages=false",
        ),
        (
            GROUPS | {"advantage_estimator": "group_normalised", "whiten_rewards": True, "whiten_advantages": True},
            "set whiten_rewards=false and whiten_advantages=false",
        ),
        ({"betta": 0.1}, "betta"),
        ({"score_position": "somewhere"}, "on_eos"),
        ({"missing_eos_score": 1.0}, "less than or equal to 0"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny.config(**change)


@pytest.mark.parametrize(
    "changes", [{"whiten_rewards": True, "whiten_advantages": True}, {"advantage_estimator": "leave_one_out"}]
)
def test_what_whitens_once_is_accepted(changes: dict[str, object]) -> None:
    tiny.config(**GROUPS | changes)


def test_a_fixed_beta_reads_no_horizon() -> None:
    assert tiny.config(kl_horizon=1.0, beta=0.0).beta == 0.0


def test_every_knob_is_read() -> None:
    code = "\n".join(path.read_text() for path in SOURCES.glob("*.py"))
    for field in PPOConfig.model_fields:
        if field not in ("episodes",):  # read by the property `iterations`
            assert re.search(rf"config\.{field}\b|self\.{field}\b", code), f"nothing reads {field}"
