"""Alignment tax: what a policy lost on tasks it knew, as a paired difference on the same items.

Both policies answer the same items, so the difference is resampled item by item: far tighter than comparing two means.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.engine.errors import DataError
from tasks.results.answer_metrics import bleu_of_sums, corpus_bleu
from tasks.results.sheet import TaskResult
from tasks.results.win_rate import (
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


def task_score(result: TaskResult) -> float:
    """A task's figure as a share of 1: the mean over its items, or the corpus figure for BLEU."""
    return corpus_bleu(result.bleu_counts) if result.bleu_counts else float(np.mean(result.correct))


def task_change(task: str, result: TaskResult, reference: TaskResult, how: Resampling) -> Interval:
    """What a policy gained over ``reference`` on the same items; items are resampled in pairs.

    A corpus metric is computed anew on every draw of items, for both policies on the same draw (Koehn 2004).
    """
    return percentile_interval(
        task_score(result) - task_score(reference), _change_replicates(task, result, reference, how), how.confidence
    )


def macro_change(results: Mapping[str, TaskResult], reference: Mapping[str, TaskResult], how: Resampling) -> Interval:
    """Mean over tasks of the paired change; items are resampled within their task, every task weighs the same."""
    if set(results) != set(reference):
        odd = sorted(set(results) ^ set(reference))
        raise DataError(f"benchmarks: task {odd[0]!r} was run on one policy only; evaluate both on the same data")
    replicates = np.mean(
        [_change_replicates(task, results[task], reference[task], how.named(task)) for task in results], axis=0
    )
    estimate = float(np.mean([task_score(results[task]) - task_score(reference[task]) for task in results]))
    return percentile_interval(estimate, replicates, how.confidence)


def macro_mean(results: Mapping[str, TaskResult]) -> float:
    """Mean of the tasks' figures."""
    return float(np.mean([task_score(result) for result in results.values()]))


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


def _change_replicates(task: str, result: TaskResult, reference: TaskResult, how: Resampling) -> Floats:
    """(samples,) the change of a task's figure on bootstrap draws of its items."""
    if result.metric != reference.metric:
        raise DataError(f"{task}: scored by {result.metric} and by {reference.metric}; evaluate both alike")
    difference = _difference(task, result.correct, reference.correct)
    if not result.bleu_counts:
        return bootstrap_replicates(difference, how)
    mine, theirs = np.array(result.bleu_counts), np.array(reference.bleu_counts)  # (items, BLEU_COUNTS)
    rng = np.random.default_rng(how.seed)
    draws = (rng.integers(0, len(mine), size=len(mine)) for _ in range(how.samples))
    return np.array([bleu_of_sums(mine[rows].sum(axis=0)) - bleu_of_sums(theirs[rows].sum(axis=0)) for rows in draws])
