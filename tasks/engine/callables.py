"""Functions of the user's, before hours of work lead to their first call."""

import inspect
from collections.abc import Callable
from typing import Any


def call_problem(function: Callable[..., Any], *arguments: Any) -> str | None:
    """Why a function cannot be called with such arguments, or would return no value that can be read; None when it can."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        return str(error)
    except ValueError:  # some that are written in C tell nothing of their arguments
        return None
    if inspect.iscoroutinefunction(function):
        return "it is async, and returns a coroutine in the place of numbers"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return "it yields, and returns a generator in the place of a list"
    return None
