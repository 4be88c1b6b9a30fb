"""Reference numbers that were computed apart from this code: ``golden_vectors.json`` names the origin of each."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

PATH = Path(__file__).with_name("golden_vectors.json")


@lru_cache(maxsize=1)
def _cases() -> dict[str, dict[str, Any]]:
    return json.loads(PATH.read_text())["cases"]


def case(name: str) -> dict[str, Any]:
    """One case: about, inputs, outputs, tolerance, cross_checked."""
    return _cases()[name]


def close(actual: Any, expected: Any, case: dict[str, Any]) -> None:
    """Assert that two numbers, nested lists or tensors agree within the case's absolute tolerance."""
    actual, expected = (torch.as_tensor(value, dtype=torch.float64).detach().cpu() for value in (actual, expected))
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=case["tolerance"])
