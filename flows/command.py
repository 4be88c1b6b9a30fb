"""What a command line answers before anything heavy is imported: help, the composed configuration, and mistakes in it.

Torch, Transformers, Prefect and MLflow take seconds to import. Hydra and the configuration's classes do not need them.
"""

import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig

from flows.ask.flags import FLAGS, asked, take_flags
from flows.config import CONF, composed
from flows.misspelt import did_you_mean, refused
from flows.sweep.plugins import require_plugins
from tasks.engine.config import refuse_passwords
from tasks.engine.errors import ConfigError, PlumblineError


def answer_early(
    config_name: str,
    parse: Callable[[DictConfig], Any],
    folder: Path = CONF,
    answer: Callable[[Any], None] | None = None,
) -> Any:
    """Print help or configuration and exit, answer a question about one run and exit, or refuse what cannot be composed or is
    not valid; else return what ``parse`` made, None for a sweep and where Hydra alone knows the configuration.

    Args:
        config_name: of the command, in ``folder``.
        parse: validates what Hydra composed.
        folder: of the configuration.
        answer: prints what the flags of ``flows.ask.flags`` ask for, of a command that has them.
    """
    try:
        typed = take_flags(sys.argv[1:]) if answer is not None else sys.argv[1:]
        refuse_passwords(typed)
        require_plugins(typed)
        options = get_args_parser()
        _refuse_misspelt_flags(typed, [*options._option_string_actions, *(FLAGS if answer is not None else ())])
        given = options.parse_args(typed)
        if given.help or given.hydra_help or given.cfg or given.info or given.shell_completion:
            sys.argv[1:] = typed
            _hydra_alone(config_name, folder)
            sys.exit()
        if not _brings_its_own(given):
            config = parse(
                composed(
                    first_point(given.overrides, folder) if given.multirun else given.overrides, config_name, folder
                )
            )
            if answer is not None and asked() and not given.multirun:
                answer(config)
                sys.exit()
            return None if given.multirun else config
    except PlumblineError as error:
        sys.exit(f"\nerror: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    return None


def _refuse_misspelt_flags(typed: Sequence[str], known: Sequence[str]) -> None:
    """Hydra's parser would answer with its whole usage.

    Raises:
        ConfigError: an option that nobody knows.
    """
    for word in typed:
        name = word.partition("=")[0]
        if name.startswith("--") and not any(option.startswith(name) for option in known):
            raise ConfigError(f"{name}: unknown option{did_you_mean(name, known) or ';'} --help prints what there is")


def _brings_its_own(asked: Namespace) -> bool:
    """Whether the configuration comes from elsewhere, where Hydra alone knows it."""
    return bool(asked.config_path or asked.config_name or asked.config_dir or asked.experimental_rerun)


def _hydra_alone(config_name: str, folder: Path) -> None:
    def main(_: DictConfig) -> None:
        """Never called: Hydra has answered."""

    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a traceback
    main.__module__ = f"flows.{config_name}"  # which gives the job its name
    hydra.main(config_path=str(folder), config_name=config_name, version_base="1.3")(main)()


def first_point(overrides: Sequence[str], folder: Path = CONF) -> list[str]:
    """Overrides with every list of choices replaced by its first; what is not a list of choices is left out.

    Args:
        overrides: what was typed.
        folder: of the configuration, in which ``ppo=glob(*)`` looks for files.

    Raises:
        ConfigError: Hydra cannot read one of them, or there is nothing in a list.
    """
    found = []
    try:
        files = ConfigLoaderImpl(create_config_search_path(str(folder)))
        items = OverridesParser.create(config_loader=files).parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise ConfigError(refused(str(error), overrides, ())) from error
    for item in items:
        if not item.is_sweep_override():
            found.append(str(item.input_line))
        elif item.is_discrete_sweep():
            found.append(f"{item.get_key_element()}={_first(item)}")
    return found


def _first(item: Override) -> str:
    try:
        return next(item.sweep_string_iterator())
    except (
        StopIteration,
        ValueError,
        HydraException,
    ) as error:  # range(5,1), range(0,1,0), glob(*) of what is no group
        raise ConfigError(
            f"{str(item.input_line)[:100]}: found no value in it, expected one for each point; list them, KEY=A,B"
        ) from error
