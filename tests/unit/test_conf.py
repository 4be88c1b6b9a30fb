"""``conf/``: the paper's values are the base, the embedded world is what differs, and one recipe switches between them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.config import composed, load
from tests.shipped import CONF, shipped

ON_PAPER = ["sft", "ppo_init", "comparisons", "reward_model", "ppo", "rejection_sampling", "dpo"]


def leaves(values: dict[str, Any], *path: str) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for key, value in values.items():
        found |= leaves(value, *path, key) if isinstance(value, dict) else {(*path, key): value}
    return found


@pytest.mark.parametrize("group", ON_PAPER)
def test_the_sandbox_lists_only_what_differs_from_the_paper(group: str) -> None:
    own = yaml.safe_load((CONF / group / "sandbox.yaml").read_text())
    assert own.pop("defaults") == ["paper", "_self_"]
    paper = leaves(shipped(group, "paper"))
    for path, value in leaves(own).items():
        assert path in paper, f"{group}: {'.'.join(path)} is not in paper.yaml"
        assert value != paper[path], f"{group}: {'.'.join(path)} repeats paper.yaml"


def test_every_recipe_chooses_for_the_same_groups() -> None:
    chosen = {}
    for path in sorted((CONF / "recipe").glob("*.yaml")):
        text = path.read_text()
        assert text.startswith("# @package _global_\n")
        chosen[path.stem] = [next(iter(entry)) for entry in yaml.safe_load(text)["defaults"]]
    assert chosen["sandbox"] == chosen["paper"] and len(chosen["paper"]) == 6
    entries = yaml.safe_load((CONF / "rlhf.yaml").read_text())["defaults"]
    followers = [
        group for entry in entries if entry != "_self_" for group, choice in entry.items() if choice == "${recipe}"
    ]
    assert sorted([*followers, "comparisons"]) == sorted(ON_PAPER)  # own data brings its comparisons along


@pytest.mark.parametrize("recipe", ["paper", "sandbox"])
def test_a_stage_follows_the_recipe_unless_it_is_chosen_itself(recipe: str) -> None:
    data = ["data_prep.folder=here", "model.name_or_path=there"] if recipe == "paper" else []
    values = composed([f"recipe={recipe}", "dpo=paper", *data])
    assert values.sft.adam.learning_rate == shipped("sft", recipe)["adam"]["learning_rate"]
    assert values.dpo.adam.learning_rate == shipped("dpo", "paper")["adam"]["learning_rate"]


def test_experiments_switch_the_recipe() -> None:
    for name in ("own_data", "own_data_from_scratch", "instructgpt_1_3b"):
        experiment = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())
        assert experiment["defaults"][0] == {"override /recipe": "paper"}


def test_own_data_and_the_paper_are_two_words() -> None:
    """own_data: where the data comes from and what it lacks; paper: published values."""
    assert {path.parent.name for path in CONF.glob("*/own_data.yaml")} == {
        "data_prep",
        "comparisons",
        "evaluation",
        "experiment",
    }
    assert {path.parent.name for path in CONF.glob("*/paper.yaml")} == {*ON_PAPER, "recipe"}
    assert shipped("comparisons", "own_data") == shipped("comparisons", "paper") | {
        "source": "given",
        "prompts_from": "rl_prompts",
    }


def model_that_reads(folder: Path, **shape: object) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(shape))
    return f"model.name_or_path={folder}"


@pytest.mark.parametrize(
    ("shape", "context"),
    [
        ({"max_position_embeddings": 96}, 96),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 512}}, 512),
        ({"max_position_embeddings": 8192}, 2048),  # the paper's
        (
            {
                "max_position_embeddings": 4096,
                "original_max_position_embeddings": 64,
                "rope_scaling": {"type": "longrope"},
            },
            64,
        ),
        ({}, 2048),
        ({"text_config": "odd", "rope_scaling": "odd", "max_position_embeddings": 96}, 96),
    ],
)
def test_own_data_reads_what_the_model_reads_and_at_most_what_the_paper_did(
    tmp_path: Path, shape: dict[str, object], context: int
) -> None:
    config = load(["experiment=own_data", "data_prep.folder=/data", model_that_reads(tmp_path / "model", **shape)])
    assert config.model.context_tokens == context
    assert (config.data_prep.prompt_tokens, config.ppo.response_tokens) == (context // 2, context // 2)
    assert (config.ppo_init.row_tokens, config.ppo.ptx_row_tokens) == (context, context)
    assert config.evaluation.context_tokens == min(512, context - 32)


@pytest.mark.parametrize(("reads", "context", "response"), [(8192, 512, 128), (96, 96, 48)])
def test_a_small_model_too(tmp_path: Path, reads: int, context: int, response: int) -> None:
    model = model_that_reads(tmp_path / "model", max_position_embeddings=reads)
    config = load(["experiment=small_model", "data_prep.folder=/data", model])
    assert (config.model.context_tokens, config.data_prep.response_tokens) == (context, response)
    assert config.sft.row_tokens == context and config.ppo.ptx_row_tokens == min(256, context)
    assert (config.runtime.threads, config.runtime.max_workers) == (len(os.sched_getaffinity(0)), 1)


@pytest.mark.parametrize(
    ("overrides", "rate"), [([], 1e-5), (["adapter=lora"], 5e-5), (["adapter=lora", "ppo.adapter=null"], 1e-5)]
)
def test_ppo_of_a_small_model_takes_the_rate_of_what_it_trains(
    tmp_path: Path, overrides: list[str], rate: float
) -> None:
    model = model_that_reads(tmp_path / "model", max_position_embeddings=512)
    config = load(["experiment=small_model", "data_prep.folder=/data", model, *overrides])
    assert config.ppo.policy_adam.learning_rate == rate


@pytest.mark.parametrize(
    ("flags", "overrides", "expected"),
    [
        ("avx2 amx_bf16", [], ("bf16", "fp32")),
        ("avx2 amx_bf16", ["adapter=lora"], ("bf16", "bf16")),
        ("avx2 amx_bf16", ["adapter=lora", "runtime.precision=fp32"], ("fp32", "fp32")),
        ("avx2", ["adapter=lora"], ("fp32", "fp32")),
        ("avx2", ["runtime=gpu"], ("bf16", "fp32")),
    ],
)
def test_a_small_model_computes_in_what_the_processor_multiplies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, overrides: list[str], expected: tuple[str, str]
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t: {flags}\n")
    monkeypatch.setattr("flows.ask.processor.CPUINFO", tmp_path / "cpuinfo")
    runtime = load(["experiment=small_model", "data_prep.folder=/data", "model.name_or_path=x", *overrides]).runtime
    assert (runtime.precision, runtime.frozen_precision) == expected


@pytest.mark.parametrize("name", ["own_data", "small_model", "instructgpt_1_3b"])
def test_every_experiment_has_a_miniature(tmp_path: Path, name: str) -> None:
    model = model_that_reads(tmp_path / "model", max_position_embeddings=96)
    config = load([f"experiment={name}", "scale=miniature", "data_prep.folder=/data", model])
    assert (config.sft.epochs, config.ppo.episodes, config.evaluation.test_prompts) == (1, 64, 20)


def test_the_miniature_does_not_train_on_a_model_that_is_adopted(tmp_path: Path) -> None:
    model = model_that_reads(tmp_path / "model", max_position_embeddings=96)
    adopted = load(["experiment=own_data", "scale=miniature", "data_prep.folder=/data", model])
    assert adopted.pretrain.steps == 0 and load(["scale=miniature"]).pretrain.steps == 30
    assert adopted.model.architecture is None and adopted.data_prep.sandbox is None
