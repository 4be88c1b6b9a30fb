"""A rule, a verifier or a test of your own as labeler: a function that scores the responses to a prompt."""

import importlib
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

from tasks.comparisons.agreement import ranks_of_scores
from tasks.comparisons.labelers.config import FunctionConfig
from tasks.comparisons.labelers.labeler import Labeler, Rankings, Unranked
from tasks.engine.callables import call_problem
from tasks.engine.errors import ConfigError, DataError

KNOB = "comparisons.function.name"


class FunctionLabeler(Labeler):
    """Ranks by the numbers that a function returns."""

    def __init__(self, config: FunctionConfig) -> None:
        self._config = config

    def check(self) -> None:
        """The function must be there, and take a prompt and its responses.

        Raises:
            ConfigError: it cannot be imported, or is no such function.
        """
        self._load()

    def label(self, items: Sequence[Unranked]) -> Rankings:
        """One call an item.

        Raises:
            DataError: a call that fails, takes too long, or returns no number for each response.
        """
        function = self._load()
        return {
            item.item_id: [item.ranked(ranks_of_scores(self._scores(function, item)), f"function:{self._config.name}")]
            for item in items
        }

    def _load(self) -> Callable[[str, list[str]], Any]:
        module, _, name = self._config.name.partition(":")
        try:
            function = getattr(importlib.import_module(module), name, None)
        except (Exception, SystemExit) as error:  # whatever a module of somebody else's does when it is imported
            raise ConfigError(
                f"{KNOB}: {module} cannot be imported ({type(error).__name__}: {error}); start the command where Python finds "
                "the module, or correct the name"
            ) from error
        if not callable(function):
            raise ConfigError(f"{KNOB}: found no function {name!r} in {module}, expected one; correct the name")
        problem = call_problem(function, "prompt", ["response", "response"])
        if problem is not None:
            raise ConfigError(
                f"{KNOB}: {self._config.name} cannot be called with (prompt, responses) ({problem}), expected a plain function "
                "of a text and a list of texts; correct it"
            )
        return function  # type: ignore[no-any-return]

    def _scores(self, function: Callable[[str, list[str]], Any], item: Unranked) -> list[float]:
        where, count = f"{self._config.name}, prompt {item.item_id}", len(item.candidates.completions)
        returned = self._call(function, item, where)
        if isinstance(returned, str | bytes | dict) or not hasattr(returned, "__len__") or len(returned) != count:
            raise DataError(
                f"{where}: found {_shown(returned)}, expected a list of {count} numbers, one for each response; correct the "
                "function"
            )
        try:
            scores = [float(score) for score in returned]
        except (TypeError, ValueError):
            scores = [math.nan]
        if not all(map(math.isfinite, scores)):
            raise DataError(f"{where}: found {_shown(returned)}, expected finite numbers; correct the function")
        return scores

    def _call(self, function: Callable[[str, list[str]], Any], item: Unranked, where: str) -> Any:
        """In a thread that is left behind if it takes too long: Python cannot end it, and need not wait for it."""
        returned: list[Any] = []
        failed: list[BaseException] = []

        def call() -> None:
            try:
                returned.append(function(item.text, list(item.candidates.completions)))
            except (Exception, SystemExit) as error:  # of somebody else's code: whatever it is, it is told below
                failed.append(error)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        thread.join(self._config.seconds)
        if thread.is_alive():
            raise DataError(
                f"{where}: found no answer after {self._config.seconds:g} seconds, expected one; make the function faster or "
                "raise comparisons.function.seconds"
            )
        if failed:
            raise DataError(
                f"{where}: the function failed with {type(failed[0]).__name__}: {failed[0]}; correct it"
            ) from failed[0]
        return returned[0]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
