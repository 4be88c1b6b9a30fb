"""What validation is spared, and what it found, in words."""

import re
from collections.abc import Mapping
from typing import Any

from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException
from pydantic import ValidationError

from flows.misspelt import did_you_mean, every_key, flat_values
from tasks.engine.urls import without_password

SHOWN = 200
"""Characters of a refused value that its message repeats."""


def leave_out_what_is_not_there(plain: Any) -> None:
    """``scale=miniature`` shrinks the embedded world and the model that is built; a run with neither has no use for that."""
    if not isinstance(plain, dict):
        return
    model, data = plain.get("model"), plain.get("data_prep")
    if isinstance(model, dict) and _only_shrunk(model.get("architecture"), "tie_embeddings"):
        model["architecture"] = None
    if (
        isinstance(data, dict)
        and data.get("source") != "sandbox"
        and _only_shrunk(data.get("sandbox"), "held_out_share")
    ):
        data["sandbox"] = None


def _only_shrunk(section: Any, left_alone: str) -> bool:
    return isinstance(section, dict) and left_alone not in section


def unresolved(error: OmegaConfBaseException) -> str:
    """What is wrong with a value that is computed from others."""
    key, first = error.full_key or "configuration", str(error).splitlines()[0]
    if isinstance(error, InterpolationKeyError):
        gone = first.split("'")[1]
        return f"{gone}: not there, and {key} is computed from it; give it a value, or correct what stands in ${{...}}"
    return f"{key}: {first}; check what stands in ${{...}}"


def describe(error: ValidationError, given: Mapping[Any, Any] | None = None, command: str = "rlhf") -> str:
    """Pydantic's findings, one line each: path, what is wrong, what was found.

    Args:
        error: of the whole configuration.
        given: what was validated, with its interpolations: a value that follows another one is not told of beside it.
        command: whose configuration it is.
    """
    raw = flat_values(given or {})
    found = {".".join(str(part) for part in item["loc"]) or "configuration": item for item in error.errors()}
    lines = []
    for path, item in found.items():
        source = re.fullmatch(r"\$\{([\w.]+)\}", str(raw.get(path)))
        if source and source[1] in found:
            continue
        if item["type"] == "extra_forbidden":
            meant = did_you_mean(path, (key for key in raw if key != path))
            lines.append(f"{path}: unknown key{meant or ';'} {every_key(command)}")
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
