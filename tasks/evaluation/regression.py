"""Alignment tax: what a policy lost on tasks it knew, as a paired difference on the same items.

Both policies answer the same items, so the difference is resampled item by item: far tighter than comparing two means.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.errors import DataError
from tasks.evaluation.win_rate import (
    Floats,
    Interval,
    Resampling,
    bootstrap_mean,
    bootstrap_replicates,
    percentile_interval,
)


def paired_change(correct: Sequence[float], reference: Sequence[float], how: Resampling) -> Interval:
    """Mean of ``correct - reference`` over the same items, with its bootstrap interval."""
    return bootstrap_mean(_difference("items", correct, reference), how)


def macro_change(
    correct: Mapping[str, Sequence[float]], reference: Mapping[str, Sequence[float]], how: Resampling
) -> Interval:
    """Mean over tasks of the paired change; items are resampled within their task, every task weighs the
    same.
    """
    if set(correct) != set(reference):
        odd = sorted(set(correct) ^ set(reference))
        raise DataError(f"benchmarks: task {odd[0]!r} was run on one policy only; evaluate both on the same data")
    differences = {task: _difference(task, correct[task], reference[task]) for task in correct}
    replicates = np.mean(
        [bootstrap_replicates(values, how.named(task)) for task, values in differences.items()], axis=0
    )
    estimate = float(np.mean([values.mean() for values in differences.values()]))
    return percentile_interval(estimate, replicates, how.confidence)


def macro_mean(correct: Mapping[str, Sequence[float]]) -> float:
    """Mean over tasks of the share answered correctly."""
    return float(np.mean([np.mean(values) for values in correct.values()]))


def perplexity(nll: Sequence[float], tokens: Sequence[int]) -> float:
    """exp of the mean negative log-likelihood a token; ``nll`` is the sum of each document in nats."""
    return float(np.exp(np.sum(nll) / np.sum(tokens)))


def perplexity_ratio(
    nll: Sequence[float], reference_nll: Sequence[float], tokens: Sequence[int], how: Resampling
) -> Interval:
    """Perplexity over the reference's on the same documents; documents are resampled in pairs."""
    gain = _difference("perplexity", nll, reference_nll)
    weights = np.asarray(tokens, dtype=np.float64)
    rng = np.random.default_rng(how.seed)
    rows = rng.integers(0, len(gain), size=(how.samples, len(gain)))
    replicates = np.exp(gain[rows].sum(axis=1) / weights[rows].sum(axis=1))
    return percentile_interval(float(np.exp(gain.sum() / weights.sum())), replicates, how.confidence)


def _difference(what: str, values: Sequence[float], reference: Sequence[float]) -> Floats:
    if len(values) != len(reference):
        raise DataError(f"{what}: {len(values)} results against {len(reference)}; evaluate both on the same items")
    return np.asarray(values, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
