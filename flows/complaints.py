"""What validation is spared, and what it found, in words."""

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from flows.misspelt import KEYS, did_you_mean
from tasks.engine.urls import without_password

SHOWN = 200
"""Characters of a refused value that its message repeats."""


def leave_out_what_is_not_there(plain: Any) -> None:
    """``scale=miniature`` shrinks the embedded world and the model that is built; a run with neither has no use for that."""
    if not isinstance(plain, dict):
        return
    model, data = plain.get("model"), plain.get("data_prep")
    if (
        isinstance(model, dict)
        and model.get("name_or_path")
        and "tie_embeddings" not in (model.get("architecture") or {})
    ):
        model["architecture"] = None
    if (
        isinstance(data, dict)
        and data.get("source") != "sandbox"
        and "held_out_share" not in (data.get("sandbox") or {})
    ):
        data["sandbox"] = None


def describe(error: ValidationError, known: Iterable[str] = ()) -> str:
    """Pydantic's findings, one line each: path, what is wrong, what was found; ``known`` are the keys that were given."""
    lines = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"]) or "configuration"
        if item["type"] == "extra_forbidden":
            meant = did_you_mean(path, (key for key in known if key != path))
            lines.append(f"{path}: unknown key{meant or ';'} {KEYS}")
        elif item["type"] == "missing":
            lines.append(f"{path}: missing; every key is set in conf/")
        elif item["type"] == "value_error":
            lines.append(f"{path}: {item['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(f"{path}: {item['msg']}, found {_short(item['input'])}")
    return without_password("invalid configuration\n  " + "\n  ".join(lines))


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}... ({len(shown)} characters)"
