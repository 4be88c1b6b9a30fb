"""Best-of-n, the optimiser without training that tells a poor reward model from a poor PPO; over-optimisation curves.

Source: Stiennon et al. 2020 (KL of best-of-n); Nakano et al. 2021 (unbiased estimator); Gao et al. 2022 (curves).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.engine.errors import DataError

Floats = NDArray[np.float64]


def best_of_n_kl(n: int) -> float:
    """KL from best-of-n to the policy it samples, ``log n - (n - 1) / n`` nats: exact without ties, else an
    upper bound.
    """
    return math.log(n) - (n - 1) / n


def pick_best(proxy: Floats, n: int) -> NDArray[np.int64]:
    """(B,) index of the highest ``proxy`` (B, N) among the first ``n`` candidates; the earliest of equals."""
    picked: NDArray[np.int64] = np.argmax(proxy[:, :n], axis=1)
    return picked


def best_of_n_estimate(proxy: Floats, target: Floats, n: int) -> Floats:
    """Expected ``target`` of the candidate that ``proxy`` picks from n of N draws; (B, N), (B, N) -> (B,).

    Averages over all subsets of size n at once: the i-th smallest proxy (from 0) is the best of C(i, n-1) of the
    C(N, n) subsets. Candidates with equal proxy share their mean target, as if ties were broken by lot.
    """
    count = proxy.shape[1]
    if not 1 <= n <= count:
        raise DataError(f"best-of-n: n is {n} with {count} candidates a prompt; expected 1 to {count}")
    weights = np.array([math.comb(i, n - 1) for i in range(count)], dtype=np.float64) / math.comb(count, n)
    order = np.argsort(proxy, axis=1, kind="stable")
    ranked_proxy = np.take_along_axis(proxy, order, axis=1)
    ranked_target = np.take_along_axis(target.astype(np.float64), order, axis=1)
    shared = np.stack([_share_ties(p, t) for p, t in zip(ranked_proxy, ranked_target, strict=True)])
    return shared @ weights


def _share_ties(proxy: Floats, target: Floats) -> Floats:
    _, group = np.unique(proxy, return_inverse=True)
    return (np.bincount(group, weights=target) / np.bincount(group))[group]


def gold_of_best_of_n(distance: Floats, rise: float, decay: float) -> Floats:
    """Gold reward ``d (rise - decay d)`` at ``d = sqrt(KL)``; Gao et al. 2022 for best-of-n."""
    return distance * (rise - decay * distance)


def gold_of_rl(distance: Floats, rise: float, decay: float) -> Floats:
    """Gold reward ``d (rise - decay ln d)`` at ``d = sqrt(KL) > 0``; Gao et al. 2022 for RL."""
    return distance * (rise - decay * np.log(distance))


def peak_of_best_of_n(rise: float, decay: float) -> float:
    """Distance at which best-of-n stops gaining gold: ``rise / (2 decay)``."""
    return rise / (2 * decay)


def peak_of_rl(rise: float, decay: float) -> float:
    """Distance at which RL stops gaining gold: ``exp(rise / decay - 1)``."""
    return math.exp(rise / decay - 1)


class Fit(NamedTuple):
    """Coefficients of one of the two curves, by Gao et al. called by Greek letters: the early gain per unit of distance, and what
    slows it."""

    rise: float
    decay: float


def fit_best_of_n(distance: Floats, gain: Floats) -> Fit:
    """Least-squares fit of ``d (rise - decay d)``; (points,) distances > 0 and gains over the unoptimised policy.

    Raises:
        DataError: fewer than two different positive distances, or lengths that differ.
    """
    return _fit(distance, gain, -(distance**2))


def fit_rl(distance: Floats, gain: Floats) -> Fit:
    """Least-squares fit of ``d (rise - decay ln d)``; (points,) distances > 0 and gains over the starting policy.

    The curve's slope diverges at 0, so points next to the start should be left out (Gao et al. 2022).

    Raises:
        DataError: fewer than two different positive distances, or lengths that differ.
    """
    usable = np.where(distance > 0, distance, 1.0)
    return _fit(distance, gain, -usable * np.log(usable))


def _fit(distance: Floats, gain: Floats, slowing: Floats) -> Fit:
    if len(distance) != len(gain) or len(np.unique(distance)) < 2 or not (distance > 0).all():
        raise DataError(
            f"over-optimisation fit: found {len(distance)} distances ({len(np.unique(distance))} different, smallest "
            f"{min(distance, default=math.nan):g}) and {len(gain)} gains; expected at least two different distances > 0 "
            "with one gain each"
        )
    found = np.linalg.lstsq(np.stack([distance, slowing], axis=1), gain, rcond=None)[0]
    return Fit(float(found[0]), float(found[1]))
