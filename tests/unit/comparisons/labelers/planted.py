"""Labelers with known manners, as a user would write them: functions of a prompt and its responses."""

import sys
import time


def by_length(prompt: str, responses: list[str]) -> list[int]:
    return [len(response) for response in responses]


def reverse(prompt: str, responses: list[str]) -> list[int]:
    return [-len(response) for response in responses]


def constant(prompt: str, responses: list[str]) -> list[bool]:
    return [True] * len(responses)


def throwing(prompt: str, responses: list[str]) -> list[float]:
    raise RuntimeError("no database")


def too_few(prompt: str, responses: list[str]) -> list[float]:
    return [1.0] * (len(responses) - 1)


def a_word(prompt: str, responses: list[str]) -> str:
    return "good"[: len(responses)]


def no_number(prompt: str, responses: list[str]) -> list[float]:
    return [float("nan")] * len(responses)


def slow(prompt: str, responses: list[str]) -> list[float]:
    time.sleep(5)
    return [0.0] * len(responses)


NOT_A_FUNCTION = 3


def leaving(prompt: str, responses: list[str]) -> list[float]:
    sys.exit(3)


def of_a_prompt(prompt: str) -> list[float]:
    return [1.0]


async def later(prompt: str, responses: list[str]) -> list[float]:
    return [1.0] * len(responses)
