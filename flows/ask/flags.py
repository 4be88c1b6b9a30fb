"""Flags of `python -m flows.rlhf` that ask about a run instead of running it; Hydra never sees them."""

import importlib
from collections.abc import Callable

from flows.config import RLHFConfig
from tasks.engine.config import refuse_passwords
from tasks.engine.errors import ConfigError

FLAGS = {"--explain": "flows.ask.explain:explain", "--dry-run": "flows.ask.dry_run:dry_run"}
"""Flag -> function that answers it for one configuration; imported when it is asked for."""

_asked: list[str] = []


def take_flags(arguments: list[str]) -> list[str]:
    """Remember the flags among the arguments of a command line and return the others.

    Raises:
        ConfigError: a password in an address.
        ConfigError: a flag together with a launcher or sweeper that is not Hydra's own; the answer is printed here, one
            point after the other, and there is no result that a search could go by.
    """
    refuse_passwords(arguments)
    _asked[:] = [flag for flag in FLAGS if flag in arguments]
    rest = [argument for argument in arguments if argument not in FLAGS]
    plugins = [item for item in rest if item.startswith(("hydra/launcher=", "hydra/sweeper=", "search="))]
    if _asked and plugins:
        raise ConfigError(f"{_asked[0]} goes through the points one by one; leave out {' '.join(plugins)}")
    return rest


def asked() -> bool:
    """Whether this command only asks."""
    return bool(_asked)


def answer(config: RLHFConfig) -> None:
    """Print what the flags ask for."""
    for flag in _asked:
        module, _, name = FLAGS[flag].partition(":")
        function: Callable[[RLHFConfig], None] = getattr(importlib.import_module(module), name)
        function(config)
