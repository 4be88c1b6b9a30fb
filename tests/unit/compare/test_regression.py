import numpy as np
import pytest

from tasks.compare.regression import (
    macro_change,
    macro_mean,
    paired_change,
    perplexity_ratio,
    task_change,
    task_score,
)
from tasks.engine.errors import DataError
from tasks.results.answer_metrics import bleu_counts
from tasks.results.sheet import TaskResult
from tasks.results.win_rate import Resampling

HOW = Resampling(confidence=0.95, samples=1000, seed=7)


def results(**scores: list[float]) -> dict[str, TaskResult]:
    return {
        task: TaskResult(item_ids=[f"{task}{row}" for row in range(len(values))], correct=values)
        for task, values in scores.items()
    }


def translations(answers: list[str], references: list[str]) -> TaskResult:
    counts = [bleu_counts(answer, reference) for answer, reference in zip(answers, references, strict=True)]
    return TaskResult(
        item_ids=[str(row) for row in range(len(answers))],
        correct=[0.0] * len(answers),
        metric="bleu",
        bleu_counts=counts,
    )


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
    items = results(a=[1, 0, 1], b=[0, 0])
    change = macro_change(items, items, HOW)
    assert (change.estimate, change.low, change.high) == (0, 0, 0)


def test_every_task_weighs_the_same() -> None:
    assert macro_mean(results(a=[1, 1, 1, 1], b=[0, 1])) == 0.75
    change = macro_change(results(a=[1, 1, 1, 1], b=[0, 1]), results(a=[1, 1, 1, 0], b=[1, 1]), HOW)
    assert change.estimate == pytest.approx((0.25 - 0.5) / 2)
    assert change.low < change.estimate < change.high


def test_tasks_are_resampled_independently() -> None:
    rng = np.random.default_rng(3)
    new, old = rng.integers(0, 2, 500), rng.integers(0, 2, 500)
    # The same items as four tasks: resampled together they would vary as one task does, twice as much.
    change = macro_change(
        results(**dict.fromkeys("abcd", new.tolist())), results(**dict.fromkeys("abcd", old.tolist())), HOW
    )
    spread = np.sqrt(np.var(new - old) / 500 / 4)
    assert change.high - change.low == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_the_ratio_of_perplexities_is_paired() -> None:
    ratio = perplexity_ratio([12.0, 12.0, 12.0], [10.0, 10.0, 10.0], [10, 10, 10], HOW)
    assert ratio.estimate == pytest.approx(np.exp(0.2))
    assert ratio.low == pytest.approx(ratio.high)  # the same loss on every document: nothing varies


def test_errors_name_the_task() -> None:
    with pytest.raises(DataError, match="'b' was run on one policy only"):
        macro_change(results(a=[1], b=[1]), results(a=[1]), HOW)
    with pytest.raises(DataError, match="a: 2 results against 1"):
        macro_change(results(a=[1, 0]), results(a=[1]), HOW)
    f1 = results(a=[0.5])["a"].model_copy(update={"metric": "f1"})
    with pytest.raises(DataError, match="a: scored by f1 and by accuracy"):
        task_change("a", f1, results(a=[1])["a"], HOW)


REFERENCES = [
    "the small cat sat on the red mat .",
    "two men walk along a quiet street today .",
    "it rains in the north .",
]
GOOD = ["the small cat sat on the red mat .", "two men walk along a street today .", "it rains in the north ."]
BAD = ["the small cat on the red mat .", "two men walk on a road .", "in the north it rains ."]


def test_bleu_is_the_corpus_figure_and_not_a_mean_of_sentences() -> None:
    # `sacrebleu ref.txt -i hyp.txt -m bleu -b -w 4` on the same three lines prints 86.2532
    assert task_score(translations(GOOD, REFERENCES)) == pytest.approx(0.862532, abs=1e-6)


def test_bleu_changes_are_paired_draws_of_the_corpus_figure() -> None:
    good, bad = translations(GOOD * 8, REFERENCES * 8), translations(BAD * 8, REFERENCES * 8)
    change = task_change("fr_en", bad, good, HOW)
    assert change.estimate == pytest.approx(task_score(bad) - task_score(good))
    assert change.low < change.estimate < change.high < 0
    same = task_change("fr_en", good, good, HOW)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)  # drawn apart, the two would differ by chance
    assert macro_change({"fr_en": bad}, {"fr_en": good}, HOW).estimate == pytest.approx(change.estimate)


def test_the_perplexity_ratio_resamples_losses_with_their_tokens() -> None:
    """Its interval is that of a ratio estimator (delta method), far tighter than if lengths were not drawn along."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(5, 200, 400)
    reference = 2.0 * tokens
    gain = 0.3 * tokens + rng.normal(0, 2, 400)
    found = perplexity_ratio((reference + gain).tolist(), reference.tolist(), tokens.tolist(), HOW)
    log_ratio = gain.sum() / tokens.sum()
    error = np.sqrt(((gain - log_ratio * tokens) ** 2).sum()) / tokens.sum()
    assert np.log(found.estimate) == pytest.approx(log_ratio)
    assert np.log(found.low) == pytest.approx(log_ratio - 1.96 * error, abs=0.15 * error)
    assert np.log(found.high) == pytest.approx(log_ratio + 1.96 * error, abs=0.15 * error)
