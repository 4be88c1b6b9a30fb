import numpy as np
import pytest

from tasks.measure.safety import bias_entropy
from tasks.results.best_of_n import (
    best_of_n_estimate,
    best_of_n_kl,
    gold_of_best_of_n,
    gold_of_rl,
    peak_of_best_of_n,
    peak_of_rl,
)
from tasks.results.win_rate import Resampling, normal, wilson, win_rate
from tests.golden.cases import case

CLOSE = {"rtol": 0, "atol": 1e-9}


@pytest.mark.point(60)
def test_win_rate_ci() -> None:
    golden = case("win_rate_ci")
    wins, n = golden["inputs"]["wins"], golden["inputs"]["n"]
    outcomes = np.array([1.0] * wins + [0.0] * (n - wins))
    interval = normal(outcomes, 0.95)
    np.testing.assert_allclose(interval.estimate, golden["outputs"]["rate"], **CLOSE)
    np.testing.assert_allclose(interval.high - interval.estimate, golden["outputs"]["half_width_normal"], **CLOSE)
    bounds = wilson(wins / n, n, 0.95)
    np.testing.assert_allclose([bounds.low, bounds.high], golden["outputs"]["wilson"], **CLOSE)


@pytest.mark.point(60)
def test_win_rate_ci_with_ties() -> None:
    golden = case("win_rate_ci")
    counts = golden["inputs"]["with_ties"]
    outcomes = np.repeat([1.0, 0.5, 0.0], [counts["wins"], counts["ties"], counts["losses"]])
    found = win_rate(outcomes, Resampling(confidence=0.95, samples=4000, seed=0))
    half = golden["outputs"]["half_width_with_ties"]
    np.testing.assert_allclose(found.rate, golden["outputs"]["rate_with_ties"], **CLOSE)
    np.testing.assert_allclose(found.normal.high - found.normal.estimate, half, **CLOSE)
    np.testing.assert_allclose(found.bootstrap.high - found.bootstrap.low, 2 * half, rtol=0.05)
    assert (found.wins, found.ties, found.losses) == (counts["wins"], counts["ties"], counts["losses"])


@pytest.mark.point(61)
def test_bias_entropy() -> None:
    golden = case("bias_entropy")
    found = bias_entropy(golden["inputs"]["total_logp"])
    np.testing.assert_allclose(found, golden["outputs"]["entropy_bits"], **CLOSE)
    np.testing.assert_allclose(bias_entropy([-7.0, -7.0]), golden["outputs"]["entropy_bits_50_50"], **CLOSE)
    uneven = bias_entropy([float(np.log(0.9)), float(np.log(0.1))])
    np.testing.assert_allclose(uneven, golden["outputs"]["entropy_bits_90_10"], **CLOSE)


@pytest.mark.point(64)
def test_best_of_n_kl() -> None:
    golden = case("best_of_n_kl")
    found = [best_of_n_kl(n) for n in golden["inputs"]["n"]]
    np.testing.assert_allclose(found, golden["outputs"]["kl"], **CLOSE)
    np.testing.assert_allclose(np.sqrt(found), golden["outputs"]["d"], **CLOSE)


@pytest.mark.point(64)
def test_best_of_n_estimator() -> None:
    golden = case("best_of_n_estimator")
    proxy, gold = np.array([golden["inputs"]["proxy"]]), np.array([golden["inputs"]["gold"]])
    for n, expected in golden["outputs"]["estimate"].items():
        np.testing.assert_allclose(best_of_n_estimate(proxy, gold, int(n))[0], expected, **CLOSE)


def test_overoptimisation_curves() -> None:
    golden = case("overoptimisation_curves")
    given, expected = golden["inputs"], golden["outputs"]
    d = np.array(given["d"])
    bon, rl = (given["alpha_bon"], given["beta_bon"]), (given["alpha_rl"], given["beta_rl"])
    np.testing.assert_allclose(gold_of_best_of_n(d, *bon), expected["R_bon"], **CLOSE)
    np.testing.assert_allclose(gold_of_rl(d, *rl), expected["R_rl"], **CLOSE)
    np.testing.assert_allclose(peak_of_best_of_n(*bon), expected["peak_d_bon"], **CLOSE)
    np.testing.assert_allclose(peak_of_rl(*rl), expected["peak_d_rl"], **CLOSE)
    peak_bon, peak_rl = np.array([peak_of_best_of_n(*bon)]), np.array([peak_of_rl(*rl)])
    np.testing.assert_allclose(gold_of_best_of_n(peak_bon, *bon)[0], expected["peak_R_bon"], **CLOSE)
    np.testing.assert_allclose(gold_of_rl(peak_rl, *rl)[0], expected["peak_R_rl"], **CLOSE)
