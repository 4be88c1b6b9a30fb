"""Launchers and sweepers of Hydra that are packages of their own."""

import importlib.util
import itertools
from collections.abc import Sequence

from tasks.engine.errors import ConfigError

PLUGINS = {
    "hydra/launcher=joblib": "hydra_plugins.hydra_joblib_launcher",
    "hydra/sweeper=optuna": "hydra_plugins.hydra_optuna_sweeper",
    "search=": "hydra_plugins.hydra_optuna_sweeper",
}
"""Start of an argument -> package that it needs."""


def require_plugins(arguments: Sequence[str]) -> None:
    """Say how to install a launcher or sweeper that is asked for and missing; Hydra only says that it is unknown.

    Raises:
        ConfigError: the extra ``sweep`` is not installed.
    """
    for argument, start in itertools.product(arguments, PLUGINS):
        package = PLUGINS[start]
        if argument.startswith(start) and argument != "search=null" and not _installed(package):
            raise ConfigError(
                f"{argument} needs the package {package.rpartition('.')[2]}, which is not installed; "
                "run `pip install -c constraints.txt -e .[sweep]`"
            )


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # not even the namespace that plugins share
        return False
