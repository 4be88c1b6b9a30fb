import pytest

from tasks.compare.judges.agreement import (
    between_annotators,
    krippendorff_alpha,
    majority,
    with_annotators,
    with_majority,
)
from tasks.results.win_rate import Resampling

HOW = Resampling(0.95, 200, 1)


def test_alpha_of_krippendorffs_own_example() -> None:
    """Krippendorff 2011, section C: four observers, twelve units, nominal data: alpha = 0.743."""
    observers = (
        (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
        (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
        (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
        (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
    )
    units = [[label for label in unit if label is not None] for unit in zip(*observers, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_alpha_is_one_when_all_agree_and_unknown_without_variation() -> None:
    assert krippendorff_alpha([[1, 1], [-1, -1], [0, 0]]) == pytest.approx(1)
    assert krippendorff_alpha([[1, 1], [1, 1]]) is None
    assert krippendorff_alpha([[1], []]) is None


def test_people_with_each_other_by_hand() -> None:
    items = [{"a": 1, "b": 1, "c": -1}, {"a": 0, "b": 1}, {"a": 1}]
    found = between_annotators(items, HOW)
    assert (found.items, found.comparisons, found.decisive_comparisons) == (2, 4, 3)
    assert found.exact is not None and found.decisive is not None
    assert (found.exact.estimate, found.decisive.estimate) == (0.25, pytest.approx(1 / 3))


def test_a_judge_with_people_by_hand() -> None:
    items = [{"a": 1, "b": 1, "c": -1}, {"a": 0, "b": 1}, {"a": -1}, {"a": 1}]
    found = with_annotators([0.4, 1.0, 1.0, None], items, HOW)
    assert (found.items, found.comparisons) == (3, 6)
    assert found.exact is not None and found.decisive is not None
    assert (found.exact.estimate, found.decisive.estimate) == (pytest.approx(3 / 6), pytest.approx(3 / 5))
    best = with_majority([0.4, 1.0, 1.0, None], items, HOW)
    assert best.exact is not None
    assert (best.items, best.exact.estimate) == (2, 0.5)


def test_a_majority_is_more_than_anyone_else() -> None:
    assert [majority(labels) for labels in ([1, 1, -1], [1, -1], [], [0, 0, 1], [1, 0, -1])] == [1, None, None, 0, None]


def test_nothing_shared_gives_no_share() -> None:
    found = between_annotators([{"a": 1}], HOW)
    assert (found.items, found.exact, found.decisive, found.alpha) == (0, None, None, None)
