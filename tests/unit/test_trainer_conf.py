"""The shipped values of the training stages: all of them valid, and the paper's where the paper gives them."""

from pathlib import Path
from typing import Any

import pytest

from flows.rejection_config import RejectionSamplingConfig
from tasks.comparisons.config import ComparisonsConfig
from tasks.dpo.config import DPOConfig
from tasks.engine.config import Config
from tasks.pretrain.config import PretrainConfig
from tasks.reward_model.config import RewardModelConfig
from tasks.sft.config import SFTConfig
from tests.unit import tiny_models as tiny

GROUPS: dict[str, type[Config]] = {
    "pretrain": PretrainConfig,
    "sft": SFTConfig,
    "ppo_init": SFTConfig,
    "comparisons": ComparisonsConfig,
    "reward_model": RewardModelConfig,
    "rejection_sampling": RejectionSamplingConfig,
    "dpo": DPOConfig,
}
FILES = sorted(path for group in GROUPS for path in (tiny.CONF / group).glob("*.yaml"))


def values(group: str, name: str) -> dict[str, Any]:
    loaded = tiny.shipped(group, name)
    assert loaded.pop("seed") == "${seed}"
    return loaded


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_fills_its_class(path: Path) -> None:
    GROUPS[path.parent.name].model_validate(values(path.parent.name, path.stem) | {"seed": 1})


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_value_names_its_source(path: Path) -> None:
    bare = [
        line
        for line in path.read_text().splitlines()
        if ":" in line
        and not line.lstrip().startswith(("#", "seed:", "defaults:"))
        and not line.startswith("adam:")
        and "#" not in line
    ]
    assert bare == [] or path.stem == "none"  # without steps nothing is read but the row length


def adam(group: str) -> tuple[float, float, float]:
    knobs = values(group, "paper")["adam"]
    return knobs["learning_rate"], knobs["beta1"], knobs["beta2"]


def test_paper_follows_the_paper() -> None:
    sft, start, reward = (values(group, "paper") for group in ("sft", "ppo_init", "reward_model"))
    assert adam("sft") == (9.65e-6, 0.9, 0.95)
    assert adam("ppo_init") == (5e-6, 0.9, 0.95)
    assert adam("reward_model") == (9e-6, 0.9, 0.95)
    assert (sft["epochs"], sft["batch_size"], sft["residual_dropout"], sft["pretraining_fraction"]) == (
        16,
        32,
        0.2,
        0.0,
    )
    assert (start["epochs"], start["batch_size"], start["pretraining_fraction"]) == (2, 32, 0.1)
    assert (reward["epochs"], reward["batch_size"], reward["batch_element"]) == (1, 64, "prompt")
    assert {sft["final_lr_fraction"], start["final_lr_fraction"], reward["final_lr_fraction"]} == {0.1}


def test_sandbox_keeps_the_papers_k() -> None:
    comparisons = values("comparisons", "sandbox")
    assert (comparisons["completions_min"], comparisons["completions_max"], comparisons["temperature"]) == (4, 9, 1.0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_stage_has_the_lengths_of_the_data(path: Path) -> None:
    mine, data = values(path.parent.name, path.stem), tiny.shipped("data_prep", "own_data")
    if path.stem == "sandbox":
        data = tiny.shipped("data_prep", "sandbox")
    for name in ("prompt_tokens", "response_tokens"):
        assert name not in mine or mine[name] == data[name]
