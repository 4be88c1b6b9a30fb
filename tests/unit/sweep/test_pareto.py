"""Dominance against a definition written out independently, and the cases that are easily got wrong."""

import itertools
import random

import pytest

from flows.sweep.pareto import dominated_by, dominates


def front(points: list[tuple[float, ...]]) -> list[int]:
    return [index for index, better in enumerate(dominated_by(points)) if not better]


def test_a_hand_made_front() -> None:
    # (-win rate, KL): 0 and 2 trade; 1 is beaten by 2, 3 by everybody else that is as near.
    points = [(-0.70, 5.0), (-0.60, 2.0), (-0.65, 2.0), (-0.50, 5.0)]
    assert front(points) == [0, 2]
    assert dominated_by(points) == [[], [2], [], [0, 1, 2]]


def test_duplicates_stay_on_the_front_together() -> None:
    assert front([(1.0, 1.0), (1.0, 1.0), (2.0, 2.0)]) == [0, 1]
    assert dominated_by([(1.0, 1.0), (1.0, 1.0), (2.0, 2.0)])[2] == [0, 1]


def test_a_tie_in_one_coordinate_is_decided_by_the_other() -> None:
    assert dominates((1.0, 1.0), (1.0, 2.0))
    assert not dominates((1.0, 2.0), (1.0, 1.0))


def test_no_points_and_one_point() -> None:
    assert front([]) == []
    assert front([(3.0,)]) == [0]


def test_one_objective_leaves_the_smallest_values() -> None:
    assert front([(3.0,), (1.0,), (2.0,), (1.0,)]) == [1, 3]


def test_infinities_are_values() -> None:
    assert front([(float("inf"), 0.0), (0.0, float("inf")), (float("inf"), 1.0)]) == [0, 1]


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        dominated_by([(1.0, float("nan")), (1.0, 1.0)])
    with pytest.raises(ValueError, match="2 and 1 coordinates"):
        dominates((1.0, 1.0), (1.0,))


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_against_the_definition_on_a_coarse_lattice(objectives: int) -> None:
    """Few levels, so that ties and duplicates are frequent."""
    generator = random.Random(objectives)
    for _ in range(50):
        points = [tuple(generator.randrange(3) * 1.0 for _ in range(objectives)) for _ in range(12)]
        expected = []
        for place, point in enumerate(points):
            worse_than = [
                index
                for index, other in enumerate(points)
                if other != point and not any(mine < theirs for mine, theirs in zip(point, other, strict=True))
            ]
            expected.append(worse_than)
            assert place not in worse_than
        assert dominated_by(points) == expected


def test_the_order_of_the_points_does_not_matter() -> None:
    points = [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0), (3.0, 3.0)]
    for order in itertools.permutations(points):
        assert {order[index] for index in front(order)} == set(points[:3])
