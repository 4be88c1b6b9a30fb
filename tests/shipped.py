"""The values of one file in ``conf/``, laid over the files that its defaults list names; nothing is validated."""

import re
from pathlib import Path
from typing import Any

import yaml

CONF = Path(__file__).parents[1] / "conf"


def shipped(group: str, name: str) -> dict[str, Any]:
    """``conf/<group>/<name>.yaml`` as Hydra composes it, other interpolations left as they are."""
    own: dict[str, Any] = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    values: dict[str, Any] = {}
    for entry in own.pop("defaults", []):
        if isinstance(entry, dict):
            ((below, option),) = entry.items()
            values = laid_over(values, {below: shipped(f"{group}/{below}", option)})
        elif entry != "_self_":
            values = laid_over(values, shipped(group, entry))
    return laid_over(values, {key: _of_a_long_model(value) for key, value in own.items()})


def _of_a_long_model(value: Any) -> Any:
    """What ``conf/`` computes where the model reads more than is asked, and no adapter."""
    if value == "${adapter}":
        return None
    computed = re.match(r"\$\{(least|half_of):(\d+),", value) if isinstance(value, str) else None
    return value if computed is None else int(computed[2]) // (1 if computed[1] == "least" else 2)


def laid_over(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Nested keys are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = laid_over(base[key], value) if both else value
    return merged
