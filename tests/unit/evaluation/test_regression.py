import numpy as np
import pytest

from tasks.errors import DataError
from tasks.evaluation.regression import macro_change, macro_mean, paired_change, perplexity, perplexity_ratio
from tasks.evaluation.win_rate import Resampling

HOW = Resampling(confidence=0.95, samples=1000, seed=7)


def test_planted_damage_is_seen_and_paired_is_tighter_than_unpaired() -> None:
    rng = np.random.default_rng(0)
    before = (rng.random(400) < 0.7).astype(int)
    damaged = before.copy()
    damaged[rng.choice(np.flatnonzero(before), 20, replace=False)] = 0  # 20 of 400 items lost: 5 points
    change = paired_change(damaged.tolist(), before.tolist(), HOW)
    assert change.estimate == pytest.approx(-0.05)
    assert change.high < 0
    unpaired = 2 * 1.96 * np.sqrt(2 * 0.7 * 0.3 / 400)
    assert change.high - change.low < unpaired / 2


def test_identical_results_change_by_exactly_nothing() -> None:
    items = {"a": [1, 0, 1], "b": [0, 0]}
    change = macro_change(items, items, HOW)
    assert (change.estimate, change.low, change.high) == (0, 0, 0)


def test_every_task_weighs_the_same() -> None:
    assert macro_mean({"a": [1, 1, 1, 1], "b": [0, 1]}) == 0.75
    change = macro_change({"a": [1, 1, 1, 1], "b": [0, 1]}, {"a": [1, 1, 1, 0], "b": [1, 1]}, HOW)
    assert change.estimate == pytest.approx((0.25 - 0.5) / 2)
    assert change.low < change.estimate < change.high


def test_tasks_are_resampled_independently() -> None:
    rng = np.random.default_rng(3)
    new, old = rng.integers(0, 2, 500), rng.integers(0, 2, 500)
    # The same items as four tasks: resampled together they would vary as one task does, twice as much.
    change = macro_change(dict.fromkeys("abcd", new.tolist()), dict.fromkeys("abcd", old.tolist()), HOW)
    spread = np.sqrt(np.var(new - old) / 500 / 4)
    assert change.high - change.low == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_perplexity_is_per_token_and_its_ratio_paired() -> None:
    assert perplexity([2.0, 4.0], [1, 5]) == pytest.approx(np.e)
    ratio = perplexity_ratio([12.0, 12.0, 12.0], [10.0, 10.0, 10.0], [10, 10, 10], HOW)
    assert ratio.estimate == pytest.approx(np.exp(0.2))
    assert ratio.low == pytest.approx(ratio.high)  # the same loss on every document: nothing varies


def test_errors_name_the_task() -> None:
    with pytest.raises(DataError, match="'b' was run on one policy only"):
        macro_change({"a": [1], "b": [1]}, {"a": [1]}, HOW)
    with pytest.raises(DataError, match="a: 2 results against 1"):
        macro_change({"a": [1, 0]}, {"a": [1]}, HOW)
