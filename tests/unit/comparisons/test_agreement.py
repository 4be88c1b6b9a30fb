"""Agreement between labelers, counted by hand."""

import math

import pytest

from tasks.comparisons.agreement import agreement_with_gold, count_agreement, labeler_agreement, ranks_of_scores
from tasks.comparisons.label import rankings_by_labeler
from tasks.records.records import Comparison, Prompt


def test_pairs_tied_by_either_do_not_count() -> None:
    assert count_agreement([1, 2, 3], [1, 2, 3]) == (3, 3)
    assert count_agreement([1, 2, 3], [3, 2, 1]) == (0, 3)
    assert count_agreement([1, 2, 3], [1, 3, 2]) == (2, 3)
    assert count_agreement([1, 1, 3], [1, 2, 2]) == (1, 1)
    assert count_agreement([1, 1], [1, 2]) == (0, 0)


def test_agreement_is_pooled_over_pairs_of_labelers() -> None:
    rankings = {
        "ann": {"p": [1, 2, 3], "q": [1, 2]},
        "bob": {"p": [1, 3, 2], "q": [1, 2]},
        "cat": {"q": [2, 1], "r": [1, 2]},
    }
    # ann-bob: 2 of 3 on p, 1 of 1 on q; ann-cat and bob-cat: 0 of 1 on q.
    found = labeler_agreement(rankings)
    assert (found.share, found.counted) == (3 / 6, 6)
    shares = [3 / 4, 0.0, 0.0]
    deviation = math.sqrt(sum((share - 0.25) ** 2 for share in shares) / 2)
    assert found.standard_error == pytest.approx(deviation / math.sqrt(3))


def test_agreement_with_gold_compares_each_labeler_with_gold_only() -> None:
    rankings = {"ann": {"p": [1, 2, 3]}, "bob": {"p": [3, 2, 1], "q": [1, 2]}}
    found = agreement_with_gold(rankings, {"p": [1, 2, 2], "q": [1, 2], "unseen": [1, 2]})
    assert (found.share, found.counted) == (3 / 5, 5)


def test_nothing_in_common_is_no_number() -> None:
    found = labeler_agreement({"ann": {"p": [1, 2]}, "bob": {"q": [1, 2]}})
    assert math.isnan(found.share) and found.counted == 0


def test_ranks_share_the_better_place() -> None:
    assert ranks_of_scores([0.5, 2.0, 0.5, -1.0]) == [2, 1, 2, 4]


def test_labelers_share_an_item_whatever_the_order_of_its_completions() -> None:
    prompt = Prompt(prompt_id="p", owner_id="o", text="q : red ? a :")

    def ranked(labeler: str, completions: list[str], ranks: list[int]) -> Comparison:
        return Comparison(prompt=prompt, completions=completions, ranks=ranks, labeler_id=labeler)

    same = rankings_by_labeler([ranked("ann", ["x", "y", "z"], [1, 2, 3]), ranked("bob", ["z", "x", "y"], [3, 1, 2])])
    assert labeler_agreement(same) == pytest.approx((1.0, math.nan, 3), nan_ok=True)
    other = rankings_by_labeler([ranked("ann", ["x", "y"], [1, 2]), ranked("bob", ["x", "z"], [1, 2])])
    assert labeler_agreement(other).counted == 0
