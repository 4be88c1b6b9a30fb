"""Before transformers loads a model or a tokenizer: one at a time in a process, and only from files that are there."""

import json
import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.engine.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ONE_AT_A_TIME = threading.RLock()
"""Taken around every ``from_pretrained``, ``from_config`` and constructor of transformers.

While it builds a model, transformers replaces functions of torch and of its own for the whole process: initialisations,
the tying of weights, the default dtype. Two threads that overlap put each other's replacements back, and weight tying then
stays off for good.
"""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model", "spiece.model")
"""A folder with none of these has no tokenizer."""
HEAD_FILE = "scalar_head.safetensors"
"""Of a reward model's folder: the head beside its trunk."""
LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks)\.(\d+)\.")
"""The number of a layer in the name of a tensor."""
POINTER = b"version https://git-lfs"
"""What stands at the start of a file that Git LFS has not fetched."""


def source_of(name: Path | str) -> str:
    """A local folder if there is one of that name, else the name on a hub."""
    folder = Path(name).expanduser()
    return str(folder) if folder.exists() else str(name)


def given_of(revision: str | None) -> dict[str, Any]:
    """What every call of ``from_pretrained`` is given: code that comes with a model is never run."""
    return {"revision": revision or "main", "trust_remote_code": False}


def check_tokenizer_files(name: Path | str) -> None:
    """Whether a folder has a tokenizer; a name on a hub is not looked up.

    Raises:
        ModelError: it has none.
    """
    folder = Path(source_of(name))
    if folder.exists() and not any((folder / file).exists() for file in TOKENIZER_FILES):
        raise ModelError(
            f"{name}: found no tokenizer, expected one of {', '.join(TOKENIZER_FILES)}; save it there with "
            "tokenizer.save_pretrained(folder)"
        )


def check_files(folder: Path) -> None:
    """Whether a folder has the files of a model and its tokenizer.

    Raises:
        ModelError: one is missing.
    """
    check_model_files(folder)
    check_tokenizer_files(folder)


def check_model_files(folder: Path) -> None:
    """Whether a folder has a configuration and weights that can be read safely.

    Raises:
        ModelError: one is missing.
    """
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder}: found an adapter (adapter_config.json), expected a whole model; merge it into its base with peft's "
            "merge_and_unload() and give the folder that save_pretrained then writes"
        )
    if not (folder / "config.json").is_file():
        inside = sorted(path.parent for path in folder.glob("*/config.json"))
        remedy = f"there is one in {' and '.join(map(str, inside))}" if inside else "check the path"
        raise ModelError(f"{folder}: found no config.json, expected a Hugging Face model folder; {remedy}")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        found = f"only pickled weights ({pickled[0]})" if pickled else "no weights"
        raise ModelError(
            f"{folder}: found {found}, expected model.safetensors; pickled files can run code and are refused: load "
            "them where you trust them and call model.save_pretrained(folder)"
        )
    _check_whole(folder)


def _check_whole(folder: Path) -> None:
    """Every file that the folder names is there, and is no pointer to itself."""
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]):
        with path.open("rb") as stream:
            if stream.read(len(POINTER)) == POINTER:
                raise ModelError(
                    f"{folder}: found a Git LFS pointer in the place of {path.name}, expected the file itself; run "
                    "`git lfs pull` there, or download the folder again"
                )
    for index in sorted(folder.glob("*.safetensors.index.json")):
        try:
            named = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{folder}: found a {index.name} that cannot be read ({error}), expected its weight_map; copy it again"
            ) from error
        missing = [name for name in named if not (folder / str(name)).is_file()]
        if missing:
            raise ModelError(
                f"{folder}: found {len(named) - len(missing)} of {len(named)} files of weights, expected all that "
                f"{index.name} names; copy {missing[0]} too"
            )


REPORTER = logging.getLogger("transformers.modeling_utils")
"""Where transformers reports which weights were missing, and which it did not expect."""
SCORE = "score.weight"
"""The head of a model that classifies or scores."""


def check_report(name: Path | str, model: "PreTrainedModel", report: Mapping[str, Any], *, some_layers: bool) -> None:
    """Whether the weights are those that the configuration describes, by what transformers reports of loading them.

    Args:
        name: of the folder.
        model: that was loaded.
        report: of transformers.
        some_layers: whether a configuration was given in the place of the folder's, which may leave layers out.

    Raises:
        ModelError: it is a reward model, or tensors lack, have another size, or belong to layers beyond the configured ones.
    """
    if SCORE in report["unexpected_keys"] and model.get_output_embeddings() is not None:
        # With tied embeddings nothing is missing: a causal LM would be made of it that nobody trained.
        raise ModelError(
            f"{name}: found a reward model ({SCORE} among its weights), expected a {type(model).__name__}; give the folder of "
            "another model"
        )
    missing = sorted(report["missing_keys"] - {tensor for tensor, *_ in report["mismatched_keys"]})
    if missing:
        wanted = type(model).__name__
        found = next(iter(getattr(model.config, "architectures", None) or []), wanted)
        remedy = "the complete model; save it again with save_pretrained"
        if found != wanted:
            remedy = f"a {wanted}, found a {found}; give the folder of another model"
        raise ModelError(
            f"{name}: its weights lack {len(missing)} tensors that {wanted} needs, first {missing[0]}; expected {remedy}"
        )
    sizes = sorted(report["mismatched_keys"])
    if sizes:
        tensor, there, wanted = sizes[0]
        verb = "has another size" if len(sizes) == 1 else "have other sizes"
        raise ModelError(
            f"{name}: {len(sizes)} of its tensors {verb}, first {tensor} ({_size(there)}), expected ({_size(wanted)}), as "
            "config.json has it; copy weights and config.json of the same model"
        )
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    beyond = {key: int(found[1]) for key in sorted(report["unexpected_keys"]) if (found := LAYER.search(key))}
    deeper = [key for key, layer in beyond.items() if depth is not None and layer >= depth]
    if deeper and not some_layers:
        raise ModelError(
            f"{name}: its weights have tensors of {max(beyond.values()) + 1} layers, first {deeper[0]}, expected {depth}, as "
            "config.json has it; correct num_hidden_layers, or save the shorter model with save_pretrained"
        )


def _size(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides))


@contextmanager
def report_held_back() -> Iterator[list[logging.LogRecord]]:
    """Inside this context what transformers reports of loading a model goes to a list: ``check_report`` decides first."""
    kept: list[logging.LogRecord] = []

    def hold(record: logging.LogRecord) -> bool:
        if record.levelno > logging.WARNING:
            return True
        kept.append(record)
        return False

    REPORTER.addFilter(hold)  # not by its level, which has transformers check and report other things
    try:
        yield kept
    finally:
        REPORTER.removeFilter(hold)


def cannot_load(name: Path | str, what: str, error: Exception) -> ModelError:
    """What transformers could not do, in one sentence."""
    reason = str(error).strip().split("\n")[0]
    found = f"{name}: the {what} could not be loaded ({type(error).__name__}: {reason})"
    if Path(source_of(name)).exists():
        return ModelError(f"{found}, expected complete files that transformers reads; copy or save them again")
    return ModelError(
        f"{found}, expected a local Hugging Face folder, or a hub name and a network (HF_HUB_OFFLINE unset); check the "
        "spelling, or download it and give the folder"
    )
