import math

import numpy as np
import pytest

from flows.study.rules import Claim, Judged, difference, judge, lowest_by_others, seed_interval, turn_of, verdict
from tasks.engine.errors import DataError


def claim(values: list[float], side: str = "above", threshold: float = 0.0) -> Claim:
    return Claim("x", dict(enumerate(values)), side, threshold)  # type: ignore[arg-type]


def judgement(*values: float, side: str = "above", threshold: float = 0.0, fewest: int = 3) -> str:
    return judge(claim(list(values), side, threshold), confidence=0.9, fewest_seeds=fewest).judgement


def test_interval_is_student_t() -> None:
    # Printed tables: t(0.95; 2) = 2.920, t(0.975; 4) = 2.776.
    three = seed_interval([1.0, 2.0, 3.0], 0.9)
    assert three.estimate == 2.0
    assert three.high - 2.0 == pytest.approx(2.920 / math.sqrt(3), abs=1e-3)
    assert 2.0 - three.low == pytest.approx(2.920 / math.sqrt(3), abs=1e-3)
    five = seed_interval([-2.0, -1.0, 0.0, 1.0, 2.0], 0.95)
    assert five.high == pytest.approx(2.776 * math.sqrt(2.5 / 5), abs=1e-3)


def test_interval_covers_as_often_as_it_says() -> None:
    samples = np.random.default_rng(0).normal(3.0, 2.0, size=(4000, 3))
    inside = [(found := seed_interval(list(row), 0.9)).low <= 3.0 <= found.high for row in samples]
    assert np.mean(inside) == pytest.approx(0.9, abs=0.015)


def test_a_single_seed_has_no_interval() -> None:
    assert math.isinf(seed_interval([1.0], 0.9).high)
    with pytest.raises(DataError, match="found no value"):
        seed_interval([], 0.9)


def test_differences_pair_the_seeds() -> None:
    assert difference({1: 3.0, 2: 5.0, 4: 1.0}, {2: 1.0, 1: 1.0, 3: 9.0}) == {1: 2.0, 2: 4.0}


def test_claims_are_decided_by_the_interval_not_by_the_mean() -> None:
    assert judgement(1.0, 1.1, 0.9) == "holds"
    assert judgement(-1.0, -1.1, -0.9) == "contradicted"
    assert judgement(1.0, 3.0, -0.5) == "open"
    assert judgement(-1.0, -1.1, -0.9, side="below") == "holds"
    assert judgement(1.0, 1.1, 0.9, side="below") == "contradicted"
    assert judgement(1.0, 1.1, 0.9, threshold=2.0) == "contradicted"
    assert judgement(-1.0, -1.1, -0.9, threshold=-2.0) == "holds"


def test_no_difference_at_all_is_neither_above_nor_below() -> None:
    assert judgement(0.0, 0.0, 0.0) == "contradicted"
    assert judgement(0.0, 0.0, 0.0, side="below") == "contradicted"


def test_too_few_seeds_decide_nothing() -> None:
    assert judgement(1.0, 1.0) == "not measured"
    assert judgement(1.0, 1.0, fewest=2) == "holds"
    assert judgement() == "not measured"


@pytest.mark.parametrize(
    ("judgements", "status"),
    [
        (["holds", "holds"], "reproduced"),
        (["holds", "open"], "unclear"),
        (["holds", "contradicted"], "not reproduced"),
        (["open", "contradicted", "not measured"], "not reproduced"),
        (["holds", "open", "not measured"], "not measured"),
        ([], "not measured"),
    ],
)
def test_verdict(judgements: list[str], status: str) -> None:
    assert verdict([Judged(claim([1.0]), None, item) for item in judgements]) == status  # type: ignore[arg-type]


def test_a_turn_is_found_where_gold_falls_and_proxy_rises() -> None:
    gold = [float(min(step, 30) - max(step - 30, 0)) for step in range(60)]
    turn = turn_of(gold, [float(step) for step in range(60)], window=5)
    assert turn.gold < -15
    assert turn.proxy > 15
    assert 0.4 < turn.place < 0.7


def test_noise_around_a_plateau_makes_no_fall_on_average() -> None:
    rng = np.random.default_rng(1)
    falls = [turn_of(list(rng.normal(size=60)), [0.0] * 60, window=5).gold for _ in range(3000)]
    assert np.mean(falls) == pytest.approx(0.0, abs=0.03)
    naive = [min(0.0, float(w[-1] - w.max())) for w in rng.normal(size=(3000, 6, 10)).mean(axis=2)]
    assert np.mean(naive) < -0.3  # what the same curves show when the peak is measured where it was chosen


def test_a_rising_curve_turns_at_its_end() -> None:
    turn = turn_of([float(step) for step in range(63)], [0.0] * 63, window=5)
    assert (turn.gold, turn.place) == (0.0, 1.0)


def test_too_short_curves_are_named() -> None:
    with pytest.raises(DataError, match="found 19 gold and 19 proxy scores"):
        turn_of([0.0] * 19, [0.0] * 19, window=5)


def test_the_lowest_epoch_comes_from_the_other_seeds() -> None:
    curves = {1: [3.0, 0.0, 3.0], 2: [3.0, 2.0, 1.0], 3: [3.0, 2.0, 1.0]}
    assert lowest_by_others(curves) == {1: 2, 2: 1, 3: 1}
    assert lowest_by_others({1: [1.0]}) == {}
