"""What ``conf/`` computes: lengths that follow the model's own context."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from flows.ask.processor import bf16_units

UNKNOWN = 2**31 - 1
"""For a hub name, and for a model that sets no limit: whatever else is asked decides."""
CONTEXT_KEYS = ("max_position_embeddings", "n_positions")


def context_of(name: str | None) -> int:
    """Longest sequence of a local model folder by its ``config.json``; checks before a run read it again, with care."""
    try:
        shape: Any = json.loads((Path(name or "").expanduser() / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return UNKNOWN
    shape = shape if isinstance(shape, dict) else {}
    shape = shape["text_config"] if isinstance(shape.get("text_config"), dict) else shape
    context = next((shape[key] for key in CONTEXT_KEYS if isinstance(shape.get(key), int)), UNKNOWN)
    rope = shape.get("rope_parameters") or shape.get("rope_scaling")
    if isinstance(rope, dict) and "longrope" in (rope.get("rope_type"), rope.get("type")):
        # beyond its first length, neighbours change results
        start = rope.get("original_max_position_embeddings", shape.get("original_max_position_embeddings"))
        context = min(context, start) if isinstance(start, int) else context
    return int(context)


def available_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def precision_on(device: str) -> str:
    """bf16 where products in it are the fast ones: on CUDA, and on a processor with units for it."""
    return "bf16" if device.startswith("cuda") or (device == "cpu" and bf16_units()) else "fp32"


def register() -> None:
    """Make the names below known to ``${...}``."""
    resolvers: dict[str, Callable[..., Any]] = {
        "least": lambda *values: min(map(int, values)),
        "half_of": lambda *values: min(map(int, values)) // 2,
        "minus": lambda one, other: int(one) - int(other),
        "context_of": context_of,
        "available_cores": available_cores,
        "precision_on": precision_on,
        "if_set": lambda value, one, other: other if value is None else one,
        "when_built": lambda steps, adopted: 0 if adopted else int(steps),
    }
    for name, computes in resolvers.items():
        OmegaConf.register_new_resolver(name, computes, replace=True)


register()
