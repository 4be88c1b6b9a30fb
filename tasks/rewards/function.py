"""A reward that is a Python function of the user's: ``def score(prompts, responses): return [0.5, ...]``."""

import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from tasks.engine.callables import call_problem
from tasks.engine.digests import file_digest
from tasks.engine.errors import ConfigError, RewardError

KNOB = "ppo.rewards"
Scores = Callable[[list[str], list[str]], Any]


class FunctionReward:
    """Calls the function and trusts nothing that it returns.

    Raises:
        ConfigError: there is no such function.
    """

    def __init__(self, name: str, address: str) -> None:
        self.name, self._address = name, address
        self._function = load_function(address)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """One number a response.

        Raises:
            RewardError: the function fails, or returns something else than a finite number for each.
        """
        try:
            found = self._function(list(prompts), list(responses))
        except (Exception, SystemExit) as error:  # whatever the function raises
            where = _line_of(error, self._address)
            raise self._wrong(
                f"raised {type(error).__name__}: {(str(error).splitlines() or [''])[0]}{where}", "correct the function"
            ) from error
        values = found.tolist() if hasattr(found, "tolist") else found
        if not isinstance(values, list | tuple):
            raise self._wrong(f"returned {_kind(found)}", "return a list")
        if len(values) != len(responses):
            raise self._wrong(f"returned {len(values)} scores", "return one for each response, in their order")
        for place, value in enumerate(values):
            if isinstance(value, bool) or not isinstance(value, Real):
                raise self._wrong(f"returned {_kind(value)} at place {place}", "return numbers: float(...)")
            if not math.isfinite(value):
                raise self._wrong(f"returned {value} at place {place}", "decide what such a response is worth")
        return [float(value) for value in values]

    def _wrong(self, found: str, remedy: str) -> RewardError:
        return RewardError(
            f"{KNOB}: part {self.name}: {self._address} {found}, expected a list of finite numbers, one for each response; "
            f"{remedy}"
        )


def load_function(address: str) -> Scores:
    """The function behind ``module:function`` or ``path/to/file.py:function``.

    Raises:
        ConfigError: no such file or module, it cannot be imported, or has no such function of two arguments.
    """
    place, _, name = address.rpartition(":")
    path = source_of(address)
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(f"plumbline_reward_{path.stem}", path)
            assert spec is not None and spec.loader is not None, f"{path} is a Python file"
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # before it runs: dataclasses look it up
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise ConfigError(
            f"{KNOB}: {address}: importing {path} raised {reason}, expected a module that can be imported; correct it, or "
            "install what it needs"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        known = ", ".join(key for key, value in vars(module).items() if inspect.isfunction(value)) or "none"
        raise ConfigError(
            f"{KNOB}: {address}: {path} has no function {name}, expected one of two arguments, prompts and responses (its "
            f"functions: {known}); correct the name"
        )
    problem = call_problem(function, ["prompt"], ["response"])
    if problem is not None:
        raise ConfigError(
            f"{KNOB}: {address} cannot be called with (prompts, responses) ({problem}), expected a plain function of two lists "
            "of texts; correct it"
        )
    found: Scores = function
    return found


def source_of(address: str) -> Path:
    """The file of a function's module; nothing of it is run.

    Raises:
        ConfigError: there is none.
    """
    place = address.rpartition(":")[0]
    if place.endswith(".py"):
        path = Path(place).expanduser().resolve()
        if not path.is_file():
            raise ConfigError(f"{KNOB}: {address}: found no file {path}, expected a Python file; correct the path")
        return path
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError, AttributeError):
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ConfigError(
            f"{KNOB}: {address}: Python finds no module {place}, expected one with a source file; install it, set PYTHONPATH, or "
            "write path/to/file.py:function"
        )
    return Path(spec.origin)


def source_digest(address: str) -> str:
    """SHA-256 of the function's file: with other source the rewards are others."""
    return file_digest(source_of(address))


def _line_of(error: BaseException, address: str) -> str:
    """Where in the function's own file an exception came up."""
    file, trace, line = str(source_of(address)), error.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line} of {file})" if line else ""


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
