"""Accuracy, calibration and the split by labeler."""

import math
import random

import pytest
import torch

from tasks.engine.errors import DataError
from tasks.records.records import Comparison, Prompt
from tasks.reward_model.accuracy import accuracy_report, pair_accuracy, scored_pairs
from tasks.reward_model.calibrate import calibration, zero_mean_bias
from tasks.reward_model.cross_labeler import cross_labeler_accuracy, cross_labeler_folds


def comparison(
    name: str, completions: list[str], ranks: list[int], labeler: str = "ann", kind: str = "chat"
) -> Comparison:
    prompt = Prompt(prompt_id=name, owner_id=name, text=f"q : {name} a :", kind=kind)
    return Comparison(prompt=prompt, completions=completions, ranks=ranks, labeler_id=labeler)


def test_accuracy_counts_strict_pairs_only() -> None:
    one = comparison("p", ["a", "b", "c"], [1, 2, 2])
    # b and c are tied, so their scores do not matter; a beats b and loses to c.
    assert pair_accuracy(scored_pairs([one], [[0.0, -1.0, 1.0]])) == 0.5
    # Equal scores of an ordered pair are no success.
    assert pair_accuracy(scored_pairs([one], [[0.0, 0.0, -1.0]])) == 0.5


def test_report_by_labeler_kind_and_confidence() -> None:
    comparisons = [
        comparison("p", ["a", "b b b"], [1, 2], "ann", "chat"),
        comparison("q", ["a", "b"], [2, 1], "bob", "chat"),
        comparison("r", ["a a", "b"], [1, 2], "bob", "open_qa"),
    ]
    report = accuracy_report(comparisons, [[2.0, 0.0], [1.0, 0.0], [0.5, 0.0]], bins=3)
    assert report["pairs"] == 3
    assert report["accuracy"] == pytest.approx(2 / 3)
    assert report["by_labeler"] == {"ann": {"pairs": 1, "accuracy": 1.0}, "bob": {"pairs": 2, "accuracy": 0.5}}
    assert report["by_kind"]["open_qa"]["accuracy"] == 1.0
    assert [row["accuracy"] for row in report["by_confidence"]] == [1.0, 0.0, 1.0]
    assert report["by_confidence"][0]["mean"] == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert [row["mean"] for row in report["by_length_gap"]] == [-2.0, 0.0, 1.0]


def test_report_without_pairs_says_so() -> None:
    report = accuracy_report([comparison("p", ["a", "b"], [1, 1])], [[0.0, 1.0]])
    assert (report["pairs"], report["accuracy"], report["ece"]) == (0, None, None)


def test_scores_must_match_the_comparisons() -> None:
    with pytest.raises(ValueError, match="shorter"):
        scored_pairs([comparison("p", ["a", "b"], [1, 2])], [])


@pytest.mark.point(27)
def test_calibrated_simulator_has_no_calibration_error() -> None:
    draws = torch.Generator().manual_seed(3)
    differences = 2 * torch.randn(100_000, dtype=torch.float64, generator=draws)
    preferred = torch.rand(100_000, dtype=torch.float64, generator=draws) < torch.sigmoid(differences)
    assert calibration(differences, preferred, edges=None).expected_calibration_error < 0.01
    # Twice too confident: the error must show.
    assert calibration(2 * differences, preferred, edges=None).expected_calibration_error > 0.05


def test_naming_the_winner_first_changes_nothing() -> None:
    differences = torch.tensor([0.3, -1.2, 2.0, 0.1, -0.4], dtype=torch.float64)
    preferred = torch.tensor([1, 0, 0, 1, 1])
    flipped = differences * (2 * preferred - 1)
    assert calibration(differences, preferred, edges=None, bins=2) == pytest.approx(
        calibration(flipped, torch.ones(5), edges=None, bins=2)
    )


def test_bias_makes_demonstrations_average_zero_and_keeps_differences() -> None:
    scores = torch.tensor([1e4 + 0.25, 1e4 - 0.75, 1e4])
    shifted = scores.double() - zero_mean_bias(scores)
    assert abs(shifted.mean().item()) < 1e-9
    assert torch.equal(shifted[0] - shifted[1], (scores[0] - scores[1]).double())


@pytest.mark.point(26)
def test_folds_hold_each_labeler_out_once() -> None:
    draws = random.Random(4)
    owners = [f"labeler-{draws.randrange(11)}" for _ in range(500)]
    folds = cross_labeler_folds(owners, 5, seed=1)
    held_out = [name for fold in folds for name in fold.held_out_labelers]
    assert sorted(held_out) == sorted(set(owners))
    for fold in folds:
        assert not set(fold.held_out_labelers) & set(fold.trained_labelers)
        assert set(fold.held_out_labelers) | set(fold.trained_labelers) == set(owners)
        share = sum(owner in fold.held_out_labelers for owner in owners) / len(owners)
        assert 0.1 < share < 0.3
    assert folds == cross_labeler_folds(list(reversed(owners)), 5, seed=1)


def test_too_few_labelers_are_refused() -> None:
    with pytest.raises(DataError, match="found 2 labelers in the comparisons, expected at least 5"):
        cross_labeler_folds(["ann", "bob", "ann"], 5, seed=1)


@pytest.mark.point(26)
def test_cross_labeler_accuracy_trains_without_the_held_out() -> None:
    names = ["ann", "bob", "cat", "dan", "eve"]
    train = [comparison(f"t{name}", ["a", "b"], [1, 2], name) for name in names]
    valid = [comparison(f"v{name}", ["a", "b"], [1, 2], name) for name in names]

    def fit(seen: object) -> object:
        known = {item.labeler_id for item in seen}  # type: ignore[attr-defined]
        assert len(known) == 4
        return lambda tested: [[1.0, 0.0] if item.labeler_id in known else [0.0, 1.0] for item in tested]

    result = cross_labeler_accuracy(train, valid, cross_labeler_folds(names, 5, seed=0), fit)  # type: ignore[arg-type]
    assert result["cross_labeler/accuracy_trained_labelers"] == 1.0
    assert result["cross_labeler/accuracy_heldout_labelers"] == 0.0
    assert result["cross_labeler/standard_error_heldout_labelers"] == 0.0


def test_a_group_without_an_ordered_pair_is_refused_before_training() -> None:
    names = ["ann", "bob", "cat"]
    train = [comparison(f"t{name}", ["a", "b"], [1, 2], name) for name in names]
    valid = [comparison(f"v{name}", ["a", "b"], [1, 1 if name == "cat" else 2], name) for name in names]

    def fit(seen: object) -> object:
        raise AssertionError("nothing may be trained")

    with pytest.raises(DataError, match=r"labelers cat ordered no pair of the validation .* each of 3 groups"):
        cross_labeler_accuracy(train, valid, cross_labeler_folds(names, 3, seed=0), fit)  # type: ignore[arg-type]


def test_the_standard_error_is_that_of_a_mean_over_folds() -> None:
    shares = {"ann": (1.0, 1.0), "bob": (1.0, -1.0), "cat": (-1.0, -1.0)}  # held out: 1, 1/2 and 0 of the pairs right
    train = [comparison(f"t{name}", ["a", "b"], [1, 2], name) for name in shares]
    valid = [comparison(f"v{name}{n}", ["a", "b"], [1, 2], name) for name in shares for n in range(2)]

    def fit(seen: object) -> object:
        return lambda tested: [[shares[item.labeler_id][int(item.prompt.prompt_id[-1])], 0.0] for item in tested]

    result = cross_labeler_accuracy(train, valid, cross_labeler_folds(list(shares), 3, seed=0), fit)  # type: ignore[arg-type]
    assert result["cross_labeler/accuracy_heldout_labelers"] == pytest.approx(0.5)
    assert result["cross_labeler/standard_error_heldout_labelers"] == pytest.approx(math.sqrt(0.25 / 3))
    # trained on two labelers at a time: 3/4, 1/2, 1/4
    assert result["cross_labeler/standard_error_trained_labelers"] == pytest.approx(math.sqrt(0.0625 / 3))


def test_a_confidence_on_the_edge_of_two_bins_is_in_the_upper_one() -> None:
    """A pair of equal scores (confidence 1/2, wrong) with one of confidence 0.6 that is right: 0.05 too confident together."""
    differences = torch.tensor([0.0, math.log(0.6 / 0.4)], dtype=torch.float64)
    found = calibration(differences, torch.ones(2), edges=[0.4, 0.5, 1.0])
    assert found.expected_calibration_error == pytest.approx(0.05)
