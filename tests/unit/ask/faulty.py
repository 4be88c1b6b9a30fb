"""A sound model and sound data, and how faults are planted in them; all of it invented."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from tests.unit.language.chat_templates import CHATML
from tests.unit.tiny_folder import NAMES, THINGS, bare_tokenizer, model_folder, text_of

VERBS = ("paints", "sells", "hides", "repairs", "measures", "borrows", "describes", "carries", "washes", "finds")


class Scene(NamedTuple):
    """What a fault is planted in."""

    model: Path
    data: Path
    overrides: list[str]
    """Added to the command line."""
    patch: pytest.MonkeyPatch


def answer(index: int, extra: int = 0) -> str:
    """No two are alike; every other one is the longer of its pair."""
    words = [
        NAMES[index % 12],
        VERBS[(index + extra) % 10],
        "the",
        THINGS[index // 12 % 10],
        "again",
        f"{index} times .",
    ]
    return " ".join([*words, *(["and then rests"] if (index + extra) % 2 else [])])


def demonstrations(rows: Iterable[int] = range(60)) -> list[dict[str, Any]]:
    return [{"prompt": text_of(i), "response": answer(i)} for i in rows]


def pairs(rows: Iterable[int] = range(60, 105)) -> list[dict[str, Any]]:
    return [{"prompt": text_of(i), "chosen": answer(i), "rejected": answer(i, 3)} for i in rows]


def prompts(rows: Iterable[int] = range(60)) -> list[dict[str, Any]]:
    return [{"prompt": f"{VERBS[i % 10]} {THINGS[i % 7]} case {i} : {text_of(i + 1)}"} for i in rows]


def write(path: Path, rows: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def sound_model(folder: Path) -> Path:
    model_folder(folder)
    tokenizer = bare_tokenizer()
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    edit(folder / "config.json", eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")])
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def sound_data(folder: Path) -> Path:
    write(folder / "demonstrations.jsonl", demonstrations())
    write(folder / "comparisons.jsonl", pairs())
    write(folder / "rl_prompts.jsonl", prompts())
    return folder


SOUND = (
    "experiment=small_model",
    "model.context_tokens=96",
    "data_prep.prompt_tokens=64",
    "data_prep.response_tokens=32",
    "data_prep.duplicate_prefix_fraction=1.0",
    "reward_model.batch_size=8",
    "ppo.episodes=512",
)


def scene(model: Path, data: Path, folder: Path, patch: pytest.MonkeyPatch) -> Scene:
    """Copies, so that a fault spoils nothing."""
    shutil.copytree(model, folder / "model")
    shutil.copytree(data, folder / "data")
    return Scene(folder / "model", folder / "data", [], patch)


def command_line(at: Scene, root: Path) -> list[str]:
    return [
        *SOUND,
        f"model.name_or_path={at.model}",
        f"data_prep.folder={at.data}",
        f"tracking.root={root}",
        *at.overrides,
    ]


# How faults are planted. Each returns a function of the scene.

Plant = Callable[[Scene], None]


def edit(path: Path, **changes: Any) -> None:
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(known | changes), encoding="utf-8")


def given(*overrides: str) -> Plant:
    return lambda at: at.overrides.extend(overrides)


def config(**changes: Any) -> Plant:
    return lambda at: edit(at.model / "config.json", **changes)


def file(name: str, content: str | bytes) -> Plant:
    data = content.encode() if isinstance(content, str) else content
    return lambda at: (at.model / name).write_bytes(data) and None  # type: ignore[func-returns-value]


def without(*names: str) -> Plant:
    return lambda at: [(at.model / name).unlink(missing_ok=True) for name in names] and None  # type: ignore[func-returns-value]


def weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Plant:
    def plant(at: Scene) -> None:
        found = load_file(at.model / "model.safetensors")
        change(found)
        save_file(found, at.model / "model.safetensors", metadata={"format": "pt"})

    return plant


def template(text: str | None, **names: str) -> Plant:
    def plant(at: Scene) -> None:
        tokenizer = bare_tokenizer()
        tokenizer.add_special_tokens(names)
        tokenizer.chat_template = text
        (at.model / "chat_template.jinja").unlink(missing_ok=True)
        tokenizer.save_pretrained(at.model)

    return plant


def tokenizer(change: Callable[[Any], None]) -> Plant:
    def plant(at: Scene) -> None:
        found = bare_tokenizer()
        found.chat_template = CHATML
        change(found)
        found.save_pretrained(at.model)

    return plant


def data(**files: Iterable[Any] | None) -> Plant:
    """Role -> the rows of its file; None takes the file away."""

    def plant(at: Scene) -> None:
        for role, rows in files.items():
            path = at.data / f"{role.replace('__', '/')}.jsonl"
            path.unlink(missing_ok=True)
            if rows is not None:
                write(path, rows)

    return plant


def both(*plants: Plant) -> Plant:
    return lambda at: [plant(at) for plant in plants] and None  # type: ignore[func-returns-value]


def patched(target: str, value: Any) -> Plant:
    return lambda at: at.patch.setattr(target, value)


def environment(name: str, value: str) -> Plant:
    return lambda at: at.patch.setenv(name, value)


def mamba(at: Scene) -> None:
    shutil.rmtree(at.model)
    known = bare_tokenizer()
    shape = AutoConfig.for_model("mamba", vocab_size=len(known), hidden_size=32, num_hidden_layers=1, state_size=8)
    AutoModelForCausalLM.from_config(shape).save_pretrained(at.model)
    known.save_pretrained(at.model)


def bloom(at: Scene) -> None:
    """Its attention and MLP add to the residual stream by themselves."""
    shutil.rmtree(at.model)
    known = bare_tokenizer()
    shape = AutoConfig.for_model("bloom", vocab_size=len(known), hidden_size=32, n_layer=1, n_head=2)
    AutoModelForCausalLM.from_config(shape).save_pretrained(at.model)
    known.save_pretrained(at.model)
    at.overrides.append("sft.residual_dropout=0.1")


def halved(at: Scene) -> None:
    path = at.model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def file_for_store(at: Scene) -> None:
    path = at.data.parent / "store"
    path.write_text("")
    at.overrides.append(f"tracking.root={path}")
