"""Which stages of a run become models in MLflow's Models tab."""

from types import SimpleNamespace
from typing import Any

import pytest

from flows.run import logged_models


def test_every_policy_and_reward_model_of_a_run_is_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = [
        *("data_prep", "pretrain", "sft", "ppo_init", "comparisons", "reward_model", "reward_model-independent", "dpo"),
        *("rejection_sampling-samples", "rejection_sampling", "random_control", "rloo", "ppo_ptx", "evaluation"),
    ]
    logged: dict[str, Any] = {}

    def log_model(uri: str, run: str, name: str, kind: str, figures: dict[str, float], tags: dict[str, str]) -> None:
        logged[name] = (kind, figures)

    monkeypatch.setattr(logged_models, "log_model", log_model)
    monkeypatch.setattr(logged_models, "runs_of_stages", lambda uri, run: dict.fromkeys(stages, "id"))
    ref = SimpleNamespace(key="key", digest="digest", stage="stage", fingerprint="made")
    run: Any = SimpleNamespace(
        context=SimpleNamespace(tracking_uri="uri"),
        run_id="id",
        futures=dict.fromkeys(stages),
        finished=lambda future: ref,
        store=SimpleNamespace(manifest=lambda stage, made: None),
    )
    logged_models.log_models(run, {"kl/base": 3.0, "kl/rejection_sampling": 2.0})
    policies = {"pretrain", "sft", "ppo_init", "dpo", "rejection_sampling", "random_control", "rloo", "ppo_ptx"}
    assert {name for name, (kind, _) in logged.items() if kind == "policy"} == policies
    assert set(logged) - policies == {"reward_model", "reward_model-independent"}
    assert logged["pretrain"][1] == {"kl": 3.0} and logged["rejection_sampling"][1] == {"kl": 2.0}


def test_of_several_rounds_the_last_ones_models_carry_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = ["sft", *(f"{name}{later}" for later in ("", "-round_2") for name in ("reward_model", "ppo_ptx"))]
    stages += ["reward_model_before-round_2", "reward_model-independent", "reward_model-independent-round_2"]
    logged: dict[str, Any] = {}
    monkeypatch.setattr(
        logged_models, "log_model", lambda uri, run, name, kind, figures, tags: logged.update({name: (run, figures)})
    )
    monkeypatch.setattr(
        logged_models, "runs_of_stages", lambda uri, run: {stage: f"run of {stage}" for stage in stages}
    )
    ref = SimpleNamespace(key="key", digest="digest", stage="stage", fingerprint="made")
    run: Any = SimpleNamespace(
        context=SimpleNamespace(tracking_uri="uri"),
        run_id="id",
        futures=dict.fromkeys(stages),
        finished=lambda future: ref,
        store=SimpleNamespace(manifest=lambda stage, made: None),
    )
    logged_models.log_models(run, {"kl/ppo_ptx": 3.0})
    assert set(logged) == {"sft", "reward_model-round_2", "reward_model-independent-round_2", "ppo_ptx-round_2"}
    assert logged["ppo_ptx-round_2"] == ("run of ppo_ptx-round_2", {"kl": 3.0})
