"""The command line that makes a run again, for pages and cards."""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from flows.config import RLHFConfig, load
from tasks.engine.errors import ConfigError

_PLACES = ("tracking", "runtime")
"""Groups that say where and how fast, not what: nobody's result depends on them."""
WORDS, LONGEST_WORD = 4, 40
"""Of what a run's name tells beside beta, gamma and seed."""
_PLAIN = re.compile(r"[A-Za-z_./][\w./:-]*\Z")
_RESERVED = ("null", "true", "false", "nan", "inf")


def results_config(config: RLHFConfig) -> dict[str, Any]:
    """The configuration as plain JSON types, without the groups that results do not depend on."""
    return config.model_dump(mode="json", exclude=set(_PLACES))


def command_of(config: RLHFConfig) -> str:
    """``python -m flows.rlhf`` with the overrides that make ``config``, places and speed apart.

    What was typed, when the run was started from a command line; else the differences from the default configuration.
    Empty when neither makes the same configuration, such as with a value that Hydra would interpolate.
    """
    typed = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else None
    overrides = differences(config) if typed is None else [item for item in typed if not is_place(item)]
    if not _makes(overrides, config):
        overrides = differences(config)
        if not _makes(overrides, config):
            return ""
    return shlex.join(["python", "-m", "flows.rlhf", *overrides])


def differences(config: RLHFConfig) -> list[str]:
    """Overrides that turn the default configuration into ``config``, one for each value that differs."""
    return [f"{path}={_literal(value)}" for path, value in _changed(results_config(load()), results_config(config), "")]


def told_apart(name: str, command: str) -> str:
    """A run's name with what else was changed, so that a list of runs tells them apart.

    Only a name that is made of ``key=value`` words is lengthened: one of the user's own stays. Values that it has are left
    out, and so are all but a few of many.
    """
    words = name.split()
    if not all("=" in word for word in words):
        return name
    known = {word.partition("=")[0] for word in words}
    changed = [item for item in shlex.split(command)[3:] if item.partition("=")[0].rpartition(".")[2] not in known]
    shown = [
        item if len(item) <= LONGEST_WORD else item[: LONGEST_WORD - 1] + "\N{HORIZONTAL ELLIPSIS}" for item in changed
    ]
    more = [f"+{len(shown) - WORDS}"] if len(shown) > WORDS else []
    return " ".join([name, *shown[:WORDS], *more])


def is_place(override: str) -> bool:
    """Whether an override says where or how fast, and not what."""
    return override.lstrip("+~").split("=")[0].split(".")[0].split("@")[0] in (*_PLACES, "hydra")


def looks_local(name: str) -> bool:
    """Whether a model's name is a folder here rather than a name on a hub."""
    return name.startswith(("/", ".", "~")) or Path(name).expanduser().exists()


def _makes(overrides: list[str], config: RLHFConfig) -> bool:
    try:
        return results_config(load(overrides)) == results_config(config)
    except ConfigError:
        return False


def _changed(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping) and old.keys() == new.keys():
        for name in old:
            yield from _changed(old[name], new[name], f"{path}.{name}" if path else name)
    elif old != new:
        yield path, new


def _literal(value: Any) -> str:
    """A value in the grammar of Hydra's command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_literal(name)}:{_literal(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_literal, value)) + "]"
    text = str(value)
    if _PLAIN.match(text) and text.lower() not in _RESERVED:
        return text
    # Inside Hydra's quotes a backslash is itself, except before a quote.
    text = re.sub(r"(\\*)'", lambda match: 2 * match[1] + "\\'", text)
    return "'" + re.sub(r"(\\+)\Z", r"\1\1", text) + "'"
