"""What is asked of a user's function before a run."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tasks.engine.callables import call_problem


def plain(_prompts: list[str], _responses: list[str], _more: int = 0) -> list[float]:
    return []


async def waits(_prompts: list[str], _responses: list[str]) -> list[float]:
    return []


def yields(_prompts: list[str], _responses: list[str]) -> Iterator[float]:
    yield 1.0


async def both(_prompts: list[str], _responses: list[str]) -> AsyncIterator[float]:
    yield 1.0


@pytest.mark.parametrize(("function", "told"), [(waits, "async"), (yields, "yields"), (both, "yields")])
def test_a_function_that_returns_no_list_is_told(function: object, told: str) -> None:
    assert told in str(call_problem(function, ["a"], ["b"]))  # type: ignore[arg-type]


def test_arguments_are_tried_and_nothing_is_called() -> None:
    assert call_problem(plain, ["a"], ["b"]) is None
    assert "argument" in str(call_problem(plain, ["a"]))
    assert "argument" in str(call_problem(plain, ["a"], ["b"], 1, 2))


def test_one_that_tells_nothing_of_its_arguments_is_not_refused() -> None:
    assert call_problem(max, ["a"], ["b"]) is None
