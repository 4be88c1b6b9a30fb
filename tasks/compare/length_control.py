"""Win rates as if both responses were equally long.

A judge's verdicts are explained by a logistic model with three terms: how good the policy is, how much longer its
response is, and how hard its opponent is to beat on this prompt. The length-controlled win rate is what the model
predicts when the length term is 0.

    P(policy preferred) = sigmoid(quality + length * tanh(d / std(d)) + difficulty * hardness(prompt))

``d`` is the policy's length minus the opponent's. As in AlpacaEval, hardness comes from a joint fit over policies that were
set against the same opponent, with difficulty = 1 for all of them, and coefficients are shrunk by a penalty chosen by
cross-validation. Four differences: quality has the weakest penalty whichever is chosen (shrunk like the others it goes to 0,
a rate to 50 % and its interval to a point wherever a few hundred verdicts do not tell wins from chance); hardness of a policy
is fitted on the *other* policies (AlpacaEval has more than a hundred, so that one's own verdicts hardly count; with a handful
they would explain themselves); the penalty is a ridge rather than a lasso; and no hand-made verbose or concise baselines are
mixed in.

Source: Dubois et al. 2024, Length-Controlled AlpacaEval (arXiv:2404.04475), section 3 and the released code.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tasks.results.win_rate import Floats, Interval, Resampling, percentile_interval

_MOST_STEPS = 60
_CONVERGED = 1e-9
_BLOCK = 2**16
"""Weights of resamples that are fitted side by side: half a MiB a tensor, which stays in a core's own cache."""
_DIFFICULTY_PENALTY = 1.0
"""Of the joint fit: a prompt's difficulty has unit variance a priori."""


class Strength(NamedTuple):
    """How strongly the model is shrunk: penalties to choose from, and over how many folds. The weakest is quality's."""

    penalties: Sequence[float]
    folds: int

    def ridge(self, penalty: float, size: int) -> Floats:
        """(size,) Penalty of each coefficient; the first is quality."""
        return np.array([min(self.penalties), *[penalty] * (size - 1)])


def length_controlled(
    outcomes: Floats, length_differences: Floats, strength: Strength, how: Resampling
) -> list[Interval | None]:
    """Length-controlled win rate of each policy, with a bootstrap interval over prompts.

    Args:
        outcomes: (policies, prompts) share of each prompt won by the policy, in [0, 1]; NaN where it was not judged.
        length_differences: (policies, prompts) length of the policy's response minus its opponent's, any unit.
        strength: the penalties.
        how: the bootstrap; coefficients are fitted anew in every resample, hardness and penalty are kept.

    Returns:
        One interval a policy; None where fewer prompts than folds were judged.
    """
    found: list[Interval | None] = []
    terms = np.stack(
        [length_term(row, np.isfinite(won)) for row, won in zip(length_differences, outcomes, strict=True)]
    )
    for policy in range(len(outcomes)):
        judged = np.isfinite(outcomes[policy])
        if int(judged.sum()) < strength.folds:
            found.append(None)
            continue
        others = np.delete(np.arange(len(outcomes)), policy)
        hardness = prompt_difficulty(outcomes[others], terms[others])[judged]
        features = np.stack([np.ones_like(hardness), terms[policy, judged], hardness], axis=1)  # (n, 3)
        named = how.named("length control", policy)
        found.append(rate_without(features, np.array([1.0, 0.0, 1.0]), outcomes[policy, judged], strength, named))
    return found


def length_term(differences: Floats, judged: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]") -> Floats:
    """(prompts,) tanh of the differences over their standard deviation among ``judged``; 0 when all are equal."""
    spread = float(np.std(differences[judged], ddof=1)) if int(judged.sum()) > 1 else 0.0
    return np.tanh(differences / spread) if spread > 0 else np.zeros_like(differences)


def fit_logistic(features: Floats, targets: Floats, weights: Floats, penalty: Floats | float, start: Floats) -> Floats:
    """Coefficients of ridge-penalised logistic models of the same data under several weightings, by Newton's method.

    Minimises ``sum_i w_i * log loss(targets_i, sigmoid(features_i . c)) + sum_k penalty_k / 2 * c_k^2``; strictly convex.

    Args:
        features: (n, k).
        targets: (n,) in [0, 1]; a share is as good as that share of wins.
        weights: (weightings, n) not negative.
        penalty: (k,) above 0, or one for all.
        start: (weightings, k) where to begin.

    Returns:
        (weightings, k).
    """
    size = features.shape[1]
    products = (features[:, :, None] * features[:, None, :]).reshape(len(features), size * size)
    found, ridge = start.copy(), penalty * np.eye(size)  # scales the columns of a diagonal
    loss, share = _loss_and_share(found, features, targets, weights, penalty)
    for _ in range(_MOST_STEPS):
        slope = (weights * (share - targets)) @ features + penalty * found
        curvature = ((weights * share * (1 - share)) @ products).reshape(-1, size, size) + ridge
        step = np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        scale = np.ones(len(found))
        while True:  # Newton may overshoot where wins and losses are separable: halve until no weighting gets worse
            candidate = found - scale[:, None] * step
            new_loss, new_share = _loss_and_share(candidate, features, targets, weights, penalty)
            worse = new_loss > loss + 1e-12 * np.abs(loss)
            if not worse.any():
                break
            scale = np.where(worse, scale / 2, scale)
        found, loss, share = candidate, new_loss, new_share
        if float(np.abs(scale[:, None] * step).max()) < _CONVERGED:
            break
    return found


def prompt_difficulty(outcomes: Floats, terms: Floats) -> Floats:
    """(prompts,) how easily the opponent is beaten on each prompt, by a joint fit over policies; zeros without any.

    Every policy has a quality and a length coefficient, every prompt one difficulty that all policies share; only the
    difficulties are penalised noticeably.

    Args:
        outcomes: (policies, prompts) in [0, 1], NaN where a policy was not judged.
        terms: (policies, prompts) length terms.
    """
    policies, prompts = outcomes.shape
    hardness = np.zeros(prompts)
    if not policies:
        return hardness
    seen = np.isfinite(outcomes).astype(np.float64)
    won = np.where(seen > 0, outcomes, 0.5)
    own = np.stack([np.ones_like(terms), terms], axis=-1)  # (policies, prompts, 2)
    coefficients, small = np.zeros((policies, 2)), 1e-2
    # Alternate: each policy given the prompts (2 numbers each), each prompt given the policies (1 number each). Every
    # half is one damped Newton step of a jointly strictly convex loss.
    for _ in range(_MOST_STEPS):
        before = hardness
        share = _sigmoid(np.einsum("pnk,pk->pn", own, coefficients) + hardness)
        weight = seen * np.maximum(share * (1 - share), 0.05)
        slope = np.einsum("pn,pnk->pk", seen * (share - won), own) + small * coefficients
        curvature = np.einsum("pn,pni,pnj->pij", weight, own, own) + small * np.eye(2)
        coefficients = coefficients - np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        share = _sigmoid(np.einsum("pnk,pk->pn", own, coefficients) + hardness)
        weight = seen * np.maximum(share * (1 - share), 0.05)
        slope_prompt = (seen * (share - won)).sum(axis=0) + _DIFFICULTY_PENALTY * hardness
        hardness = hardness - slope_prompt / (weight.sum(axis=0) + _DIFFICULTY_PENALTY)
        if float(np.abs(hardness - before).max()) < 1e-7:
            break
    return hardness


def choose_penalty(features: Floats, targets: Floats, strength: Strength, seed: int) -> float:
    """The penalty with the lowest log loss on prompts left out; the strongest of equals."""
    rows = len(targets)
    fold_of = np.random.default_rng(seed).permutation(rows) % strength.folds
    best, lowest, size = max(strength.penalties), np.inf, features.shape[1]
    kept = np.stack([(fold_of != fold).astype(np.float64) for fold in range(strength.folds)])  # (folds, n)
    for penalty in sorted(strength.penalties, reverse=True):
        found = fit_logistic(features, targets, kept, strength.ridge(penalty, size), np.zeros((strength.folds, size)))
        held_out = _log_losses(found @ features.T, targets) * (1 - kept)
        mean = float(held_out.sum()) / rows
        if mean < lowest - 1e-12:
            best, lowest = penalty, mean
    return best


def rate_without(features: Floats, keep: Floats, targets: Floats, strength: Strength, how: Resampling) -> Interval:
    """What the model predicts, mean over prompts, with the features left out whose ``keep`` is 0; coefficients are those with."""
    count, size = features.shape
    penalty = strength.ridge(choose_penalty(features, targets, strength, how.seed), size)
    left = features * keep
    fitted = fit_logistic(features, targets, np.ones((1, count)), penalty, np.zeros((1, size)))
    estimate = float(_sigmoid(fitted @ left.T).mean())
    rng = np.random.default_rng(how.seed)
    block, replicates = max(1, _BLOCK // count), []
    for start in range(0, how.samples, block):
        drawn = min(block, how.samples - start)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=drawn).astype(np.float64)  # (drawn, n)
        found = fit_logistic(features, targets, weights, penalty, np.repeat(fitted, drawn, axis=0))
        replicates.append((_sigmoid(found @ left.T) * weights).sum(axis=1) / count)
    return percentile_interval(estimate, np.concatenate(replicates), how.confidence)


def _loss_and_share(
    found: Floats, features: Floats, targets: Floats, weights: Floats, penalty: Floats | float
) -> tuple[Floats, Floats]:
    """(weightings,) penalised loss, and (weightings, n) predicted share."""
    logits = found @ features.T
    losses = np.einsum("wn,wn->w", weights, _log_losses(logits, targets))
    return losses + (penalty * found**2).sum(axis=1) / 2, _sigmoid(logits)


def _log_losses(logits: Floats, targets: Floats) -> Floats:
    """log(1 + exp(x)) - target * x; ``np.logaddexp``, which goes number by number, takes ten times as long."""
    return np.asarray(np.maximum(logits, 0.0) + np.log1p(np.exp(-np.abs(logits))) - targets * logits)


def _sigmoid(logits: Floats) -> Floats:
    small = np.exp(-np.abs(logits))  # at most 1: nothing overflows
    return np.asarray(np.where(logits >= 0, 1.0, small) / (1.0 + small))
