"""Pareto dominance, as pure functions."""

import math
from collections.abc import Sequence


def dominates(
    first: Sequence[float],
    second: Sequence[float],
) -> bool:
    """Whether ``first`` is at least as good everywhere and better somewhere; smaller is better in every coordinate.

    Equal points do not dominate each other, so ties stay on the front together.

    Raises:
        ValueError: different lengths, or a coordinate that is not a number.
    """
    if len(first) != len(second):
        raise ValueError(f"points with {len(first)} and {len(second)} coordinates cannot be compared")
    if any(math.isnan(value) for value in (*first, *second)):
        raise ValueError(f"a coordinate is not a number: {list(first)}, {list(second)}")
    return all(a <= b for a, b in zip(first, second, strict=True)) and any(
        a < b for a, b in zip(first, second, strict=True)
    )


def dominated_by(
    points: Sequence[Sequence[float]],  # (points, objectives), smaller is better
) -> list[list[int]]:
    """For every point the indices of all points that dominate it; an empty list means it is on the front."""
    return [
        [index for index, other in enumerate(points) if index != place and dominates(other, point)]
        for place, point in enumerate(points)
    ]
