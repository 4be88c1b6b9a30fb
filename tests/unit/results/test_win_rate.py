import numpy as np
import pytest

from tasks.engine.errors import DataError
from tasks.results.win_rate import (
    Resampling,
    bootstrap_mean,
    normal,
    score_outcomes,
    wilson,
    win_rate,
)

HOW = Resampling(confidence=0.95, samples=500, seed=1)


@pytest.mark.point(60)
def test_ties_count_one_half() -> None:
    outcomes = score_outcomes([3, 2, 1, 1.0], [1, 2, 3, 1.05], tie_margin=0.1)
    assert outcomes.tolist() == [1.0, 0.5, 0.0, 0.5]
    found = win_rate(outcomes, HOW)
    assert (found.rate, found.wins, found.ties, found.losses, found.prompts) == (0.5, 1, 2, 1, 4)


def test_swapping_the_policies_mirrors_the_rate() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, 50).tolist(), rng.integers(0, 3, 50).tolist()
    assert score_outcomes(a, b, 0).mean() + score_outcomes(b, a, 0).mean() == pytest.approx(1)


def test_a_policy_against_its_own_scores_is_exactly_even() -> None:
    scores = np.random.default_rng(0).normal(size=30).tolist()
    found = win_rate(score_outcomes(scores, scores, 0.0), HOW)
    assert (found.rate, found.bootstrap.low, found.bootstrap.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("rate", "tie"), [(0.5, 0.3), (0.64, 0.3), (0.7, 0.0)])
@pytest.mark.point(60)
def test_intervals_cover_the_truth_about_95_times_in_100(rate: float, tie: float) -> None:
    rng = np.random.default_rng(11)
    chances = [rate - tie / 2, tie, 1 - rate - tie / 2]
    runs, covered = 2000, {"bootstrap": 0, "normal": 0}
    for run in range(runs):
        outcomes = rng.choice([1.0, 0.5, 0.0], size=100, p=chances)
        for name, interval in (
            ("bootstrap", bootstrap_mean(outcomes, HOW._replace(seed=run, samples=300))),
            ("normal", normal(outcomes, 0.95)),
        ):
            covered[name] += interval.low <= rate <= interval.high
    assert all(0.93 <= hits / runs <= 0.97 for hits in covered.values()), covered


def test_wilson_covers_a_share_of_wins() -> None:
    rng = np.random.default_rng(5)
    shares = rng.binomial(200, 0.8, size=4000) / 200
    hits = sum(interval.low <= 0.8 <= interval.high for interval in (wilson(share, 200, 0.95) for share in shares))
    assert 0.93 <= hits / 4000 <= 0.97


def test_wilson_stays_inside_the_unit_interval() -> None:
    assert wilson(1.0, 10, 0.95).high == 1.0
    assert 0.6 < wilson(1.0, 10, 0.95).low < 1.0
    assert wilson(0.0, 10, 0.95).low == pytest.approx(0.0, abs=1e-12)


def test_bootstrap_is_seeded_and_does_not_depend_on_the_block_size() -> None:
    values = np.random.default_rng(2).random(9000)  # several blocks of index rows
    first = bootstrap_mean(values, HOW)
    assert first == bootstrap_mean(values, HOW)
    assert first != bootstrap_mean(values, HOW._replace(seed=2))
    assert first.high - first.low == pytest.approx(2 * 1.96 * values.std() / 9000**0.5, rel=0.1)


def test_errors_name_what_was_found() -> None:
    with pytest.raises(DataError, match="2 responses against 1"):
        score_outcomes([1, 2], [1], 0)
    with pytest.raises(DataError, match="1 scores are not finite"):
        score_outcomes([float("nan"), 1], [1, 1], 0)
    with pytest.raises(DataError, match="no values"):
        bootstrap_mean(np.array([]), HOW)
