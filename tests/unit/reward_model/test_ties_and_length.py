"""Where a reward model fails: on pairs whose preferred response is shorter, and on ties."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tasks.records.records import Comparison, Prompt
from tasks.reward_model.accuracy import accuracy_report, tie_report, tied_margins

PROMPT = Prompt(prompt_id="p", owner_id="o", text="q : a :")


def ranked(completions: list[str], ranks: list[int]) -> Comparison:
    return Comparison(prompt=PROMPT, completions=completions, ranks=ranks, labeler_id="ann")


def test_a_reward_model_of_length_orders_only_pairs_whose_preferred_response_is_longer() -> None:
    comparisons = [ranked(["a b c", "a", "a b c d"], [1, 2, 3]), ranked(["a b", "c d"], [1, 2])]
    by_length = [[3.0, 1.0, 4.0], [2.0, 2.0]]
    report = accuracy_report(comparisons, by_length)
    # preferred - other: 3-1 longer, right; 3-4 and 1-4 shorter, wrong; 2-2 neither, equal scores count as wrong
    assert report["by_longer"] == {
        "neither": {"pairs": 1, "accuracy": 0.0},
        "other": {"pairs": 2, "accuracy": 0.0},
        "preferred": {"pairs": 1, "accuracy": 1.0},
    }
    assert report["accuracy"] == 0.25 and report["ties"] is None


def test_distances_of_tied_pairs() -> None:
    comparisons = [ranked(["a", "b", "c", "d"], [1, 1, 2, 1]), ranked(["a", "b"], [1, 2])]
    assert tied_margins(comparisons, [[1.0, 1.5, 9.0, 4.0], [0.0, 1.0]]) == [0.5, 3.0, 2.5]
    ties = accuracy_report(comparisons, [[1.0, 1.5, 9.0, 4.0], [0.0, 1.0]])["ties"]
    # ordered: 8, 7.5, 5 (wrongly) and 1 (wrongly); 3 x 3 of 12 comparisons are won by the first three, 1 beats 0.5
    assert ties == {
        "pairs": 3,
        "mean_distance": 2.0,
        "mean_distance_of_ordered": 5.375,
        "discrimination": pytest.approx(10 / 12),
    }


def test_discrimination_is_the_area_under_the_roc_curve_also_with_equal_distances() -> None:
    rng = np.random.default_rng(2)
    ordered, tied = rng.integers(0, 6, 80).astype(float), rng.integers(0, 4, 50).astype(float)
    found = tie_report(ordered.tolist(), tied.tolist())
    assert found is not None
    expected = roc_auc_score([1] * 80 + [0] * 50, [*ordered, *tied])
    assert found["discrimination"] == pytest.approx(expected)
    assert tie_report([], [1.0]) is None and tie_report([1.0], []) is None
