from collections.abc import Sequence

import numpy as np
import pytest

from tasks.engine.errors import DataError
from tasks.results.judge import Pair, Question, Verdict, judge_both_orders


def pairs(mine: Sequence[str], theirs: Sequence[str]) -> list[Pair]:
    return [
        Pair(f"p{row}", f"question {row}", a, b, ("ppo", "sft"))
        for row, (a, b) in enumerate(zip(mine, theirs, strict=True))
    ]


def longer(questions: Sequence[Question]) -> list[Verdict]:
    return [(len(q.first) > len(q.second)) - (len(q.first) < len(q.second)) for q in questions]


@pytest.mark.parametrize(("verdict", "bias"), [(1, 1.0), (-1, -1.0)])
def test_a_judge_that_looks_at_the_place_only_is_exposed(verdict: int, bias: float) -> None:
    found = judge_both_orders("place", lambda questions: [verdict] * len(questions), pairs(["aa"] * 6, ["b"] * 6))
    assert found.outcomes.tolist() == [0.5] * 6
    orders = found.orders
    assert (orders.position_bias, orders.inconsistent, orders.tied_verdicts, orders.verdicts) == (bias, 6, 0, 12)


def test_a_consistent_judge_has_no_position_bias() -> None:
    found = judge_both_orders(
        "longer", longer, pairs(["aa", "a", "a", "aaa", "a", "a"], ["b", "bb", "b", "b", "b", "b"])
    )
    assert found.outcomes.tolist() == [1, 0, 0.5, 1, 0.5, 0.5]
    assert (found.orders.position_bias, found.orders.inconsistent, found.orders.tied_verdicts) == (0.0, 0, 6)


def test_a_judge_that_is_sure_in_one_order_only_gives_three_quarters() -> None:
    found = judge_both_orders("half", lambda qs: [1 if q.first == "a" else 0 for q in qs], pairs(["a"], ["b"]))
    assert (found.outcomes.tolist(), found.orders.inconsistent, found.orders.tied_verdicts) == ([0.75], 0, 1)


def test_a_judge_that_always_ties_has_no_bias() -> None:
    found = judge_both_orders("tie", lambda questions: [0] * len(questions), pairs(["a"] * 6, ["b"] * 6))
    assert (found.orders.position_bias, found.orders.tied_verdicts) == (0.0, 12)


def test_equal_responses_are_a_tie_that_nobody_is_asked_about() -> None:
    seen: list[Question] = []

    def ask(questions: Sequence[Question]) -> list[Verdict]:
        seen.extend(questions)
        return [1] * len(questions)

    found = judge_both_orders("first", ask, pairs(["same", "a"], ["same", "b"]))
    assert found.outcomes.tolist() == [0.5, 0.5]
    assert (found.orders.identical, found.orders.pairs, found.orders.position_bias) == (1, 2, 1.0)
    assert seen == [Question("question 1", "a", "b"), Question("question 1", "b", "a")]


def test_a_pair_without_both_verdicts_is_left_out_and_not_a_tie() -> None:
    found = judge_both_orders(
        "mute", lambda qs: [None if q.first == "x" else 1 for q in qs], pairs(["a", "x"], ["b", "c"])
    )
    np.testing.assert_array_equal(found.outcomes, [0.5, np.nan])
    assert (found.orders.unjudged, found.orders.verdicts, found.orders.inconsistent) == (1, 3, 1)


def test_errors_name_what_was_found() -> None:
    with pytest.raises(DataError, match="judge two: verdict 2 on prompt 'question 0'; expected 1, 0, -1 or None"):
        judge_both_orders("two", lambda qs: [2] * len(qs), pairs(["a"], ["b"]))
    with pytest.raises(DataError, match="judge lazy: 1 verdicts on 2 questions"):
        judge_both_orders("lazy", lambda qs: [1], pairs(["a"], ["b"]))
