"""What is found out about a foreign model before anything is trained."""

import re
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from tasks.engine.errors import ModelError
from tasks.language.agreement import largest_disagreement
from tasks.language.inspect import TOLERANCE, inspect_model, make_fit
from tasks.language.models import load_policy, save_policy
from tests.unit import tiny_models
from tests.unit.families import PACKED, PADDED, build


def saved(folder: Path, **changes: Any) -> Path:
    model = tiny_models.policy()
    for name, value in changes.items():
        setattr(model.config, name, value)
    save_policy(model, tiny_models.tokenizer(), folder)
    return folder


def errors(folder: Path, longest: int | None = None) -> list[str]:
    return [str(found) for found in inspect_model("model.name_or_path", str(folder), longest)]


def test_a_sound_model_has_nothing_to_report(tmp_path: Path) -> None:
    assert errors(saved(tmp_path), 64) == []


def test_a_weight_that_is_not_finite_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path) / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    (found,) = errors(tmp_path)
    assert "not finite in model.norm.weight of" in found and "the file is damaged" in found


@pytest.mark.parametrize(("dtype", "name"), [(torch.int8, "int8"), (torch.float8_e4m3fn, "float8_e4m3fn")])
def test_weights_of_a_quantized_kind_are_refused_without_a_word_in_the_configuration(
    dtype: torch.dtype, name: str, tmp_path: Path
) -> None:
    path = saved(tmp_path) / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"] = weights["model.norm.weight"].to(dtype)
    save_file(weights, path, metadata={"format": "pt"})
    (found,) = errors(tmp_path)
    assert f"found {name} in model.norm.weight of" in found and "weights in fp32, bf16 or fp16" in found


def test_text_ids_without_a_row_are_refused(tmp_path: Path) -> None:
    larger = tiny_models.tokenizer()
    larger.add_tokens(["plumbline"])
    save_policy(tiny_models.policy(), larger, tmp_path)
    assert "embedding has 15 rows and whose tokenizer gives text ids up to 15" in errors(tmp_path)[0]


def test_code_that_comes_with_a_model_is_neither_run_nor_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "code.Config"}}')
    (tmp_path / "code.py").write_text("raise SystemExit('ran')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (found,) = errors(tmp_path)
    assert "brings code of its own" in found and "code that comes with a model is never run" in found


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "config.json",
            "",
            "which cannot be read .* expected the config.json of a family .*; copy it again or correct it$",
        ),
        ("config.json", '{"model_type": "new"}', "expected the config.json of a family that transformers knows"),
        (
            "tokenizer.json",
            "version https://git-lfs",
            r"a Git LFS pointer in the place of tokenizer\.json, expected the file itself; run `git lfs pull`",
        ),
        (
            "adapter_config.json",
            "{}",
            r"found an adapter .*, expected a whole model; merge it .* save_pretrained then writes$",
        ),
    ],
)
def test_a_damaged_or_foreign_folder_is_one_sentence_about_its_files(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (saved(tmp_path) / name).write_text(text)
    (found,) = errors(tmp_path)
    assert re.search(message, found) and found.count("expected") == 1
    assert "hub" not in found and "spelling" not in found  # the folder is there


def test_quantized_weights_and_ropes_that_follow_the_batch_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a", quantization_config={"quant_method": "awq"})
    assert "quantized (awq)" in errors(tmp_path / "a")[0]
    half = [1.0] * 4
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": half, "long_factor": half}
    saved(tmp_path / "b", rope_parameters=rope | {"original_max_position_embeddings": 16})
    assert "set model.context_tokens=16" in errors(tmp_path / "b", 32)[0]
    assert errors(tmp_path / "b", 16) == []


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "qwen3", "bloom"])
def test_known_families_are_decoded_as_they_read(family: str) -> None:
    assert family in PACKED | PADDED
    assert largest_disagreement(build(family)) < TOLERANCE / 100


@pytest.mark.parametrize("family", ["mamba", "openai-gpt"])
def test_families_that_are_not_are_refused_in_a_sentence(family: str) -> None:
    shape = {"mamba": {"state_size": 8}, "openai-gpt": {"n_head": 4}}[family]
    config = AutoConfig.for_model(family, vocab_size=15, hidden_size=32, num_hidden_layers=2, **shape)
    with pytest.raises(ModelError, match="choose a model of another family"):
        make_fit(AutoModelForCausalLM.from_config(config).float().eval(), tiny_models.tokenizer(), family)


def test_rows_without_text_cannot_be_drawn(tmp_path: Path) -> None:
    model = tiny_models.policy()
    ids = torch.tensor([[3, 4, 5]])
    before = model(ids).logits
    model.resize_token_embeddings(len(tiny_models.WORDS) + 9)
    make_fit(model, tiny_models.tokenizer(), "model")
    assert torch.equal(model(ids).logits, before)


def test_three_threads_load_models_with_tied_weights(tmp_path: Path) -> None:
    saved(tmp_path)
    failed: list[str] = []

    def load() -> None:
        for _ in range(6):
            try:
                load_policy(tmp_path, "cpu")
            except ModelError as error:
                failed.append(str(error))

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
