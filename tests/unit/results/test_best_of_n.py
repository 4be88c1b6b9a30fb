from itertools import combinations

import numpy as np
import pytest

from tasks.engine.errors import DataError
from tasks.results.best_of_n import best_of_n_estimate, best_of_n_kl, fit_best_of_n, fit_rl, pick_best


@pytest.mark.point(64)
def test_estimate_is_the_mean_over_all_subsets() -> None:
    rng = np.random.default_rng(4)
    proxy, gold = rng.normal(size=(3, 6)), rng.normal(size=(3, 6))
    for n in range(1, 7):
        brute = [
            np.mean([gold[row][max(chosen, key=lambda i: proxy[row][i])] for chosen in combinations(range(6), n)])
            for row in range(3)
        ]
        np.testing.assert_allclose(best_of_n_estimate(proxy, gold, n), brute, atol=1e-12)


def test_equal_proxies_are_broken_by_lot_not_by_place() -> None:
    proxy, gold = np.array([[1.0, 1.0]]), np.array([[0.0, 4.0]])
    assert best_of_n_estimate(proxy, gold, 2).tolist() == [2.0]
    assert best_of_n_estimate(proxy, gold[:, ::-1], 2).tolist() == [2.0]


def test_proxy_itself_never_falls_with_n() -> None:
    proxy = np.random.default_rng(0).normal(size=(5, 16))
    means = [best_of_n_estimate(proxy, proxy, n).mean() for n in (1, 2, 4, 8, 16)]
    assert means == sorted(means)
    assert means[-1] == pytest.approx(proxy.max(axis=1).mean())


def test_pick_uses_the_first_n_candidates_only() -> None:
    proxy = np.array([[0.1, 0.5, 0.9], [0.3, 0.3, 0.2]])
    assert pick_best(proxy, 2).tolist() == [1, 0]
    assert pick_best(proxy, 3).tolist() == [2, 0]


def test_kl_is_that_of_a_continuous_best_of_n() -> None:
    # The density of the best of n uniforms is n u^(n-1): integrate its log against itself.
    u = (np.arange(400_000) + 0.5) / 400_000
    density = 4 * u**3
    assert best_of_n_kl(4) == pytest.approx(float(np.mean(density * np.log(density))), abs=1e-6)


def test_too_few_candidates() -> None:
    with pytest.raises(DataError, match="n is 5 with 3 candidates"):
        best_of_n_estimate(np.zeros((1, 3)), np.zeros((1, 3)), 5)


def test_fits_recover_the_curve_that_made_the_points() -> None:
    d = np.linspace(0.3, 3.0, 12)
    assert fit_best_of_n(d, d * (1.5 - 0.4 * d)) == pytest.approx((1.5, 0.4))
    assert fit_rl(d, d * (0.9 - 0.6 * np.log(d))) == pytest.approx((0.9, 0.6))


def test_fits_are_least_squares() -> None:
    rng = np.random.default_rng(0)
    d, gain = rng.uniform(0.2, 3.0, 30), rng.normal(size=30)
    for fit, slowing in ((fit_best_of_n, lambda d: d), (fit_rl, np.log)):
        alpha, beta = fit(d, gain)

        def residual(a: float, b: float, slowing=slowing) -> float:  # type: ignore[no-untyped-def]
            return float(np.sum((gain - d * (a - b * slowing(d))) ** 2))

        best = residual(alpha, beta)
        nearby = [(alpha + x, beta + y) for x in (-1e-3, 0, 1e-3) for y in (-1e-3, 0, 1e-3) if (x, y) != (0, 0)]
        assert all(residual(a, b) > best for a, b in nearby)


def test_a_fit_needs_two_distances_beyond_the_start() -> None:
    for distance, gain in (([1.0], [1.0]), ([1.0, 1.0], [1.0, 2.0]), ([0.0, 1.0], [0.0, 1.0]), ([1.0, 2.0], [1.0])):
        with pytest.raises(DataError, match="at least two different distances > 0"):
            fit_rl(np.array(distance), np.array(gain))
