"""The protocol with planted debaters and planted judges: what must raise accuracy raises it, and what must not does not."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from tasks.engine.errors import DataError
from tasks.results.debate import ARGUED, FEWEST_PAIRS, Argue, DebateEffect, Side, conclusion, hold, weigh
from tasks.results.judge import FIRST, SECOND, Pair, PairVerdicts, Question, Verdict, judge_both_orders
from tasks.results.win_rate import Interval, Resampling

HOW = Resampling(0.95, 2_000, 1)
TRUTH = [FIRST if row % 3 else SECOND for row in range(120)]
PAIRS = [Pair(f"p{row}", f"question {row}", f"yes {row}", f"no {row}", ("ppo", "sft")) for row in range(120)]
RIGHT = {pair.response if truth == FIRST else pair.opponent for pair, truth in zip(PAIRS, TRUTH, strict=True)}


def believes(questions: Sequence[Question]) -> list[Verdict]:
    """Reads arguments only; between cases that sound alike it takes the alphabet's first, which here is no."""
    sure = [("so it is" in question.first) - ("so it is" in question.second) for question in questions]
    return [one or (1 if q.first < q.second else -1) for one, q in zip(sure, questions, strict=True)]


def judged(pairs: Sequence[Pair]) -> PairVerdicts:
    return judge_both_orders("believer", believes, pairs)


def honest(sides: Sequence[Side]) -> list[str]:
    return ["so it is" if side.own.split(ARGUED)[0] in RIGHT else "it is not" for side in sides]


def lying(sides: Sequence[Side]) -> list[str]:
    return ["it is not" if side.own.split(ARGUED)[0] in RIGHT else "so it is" for side in sides]


def insisting(sides: Sequence[Side]) -> list[str]:
    return ["so it is" for _ in sides]


@pytest.mark.parametrize(
    ("argue", "accuracy", "better", "worse"), [(honest, 1.0, 80, 0), (lying, 0.0, 0, 40), (insisting, 1 / 3, 0, 0)]
)
def test_arguments_count_and_nothing_else_does(argue: Argue, accuracy: float, better: int, worse: int) -> None:
    alone, debated = judged(PAIRS).outcomes, judged(hold(PAIRS, argue, 1)).outcomes
    found = weigh(TRUTH, alone, debated, HOW)
    assert found.alone.estimate == pytest.approx(40 / 120)  # no is right in a third of the pairs
    assert found.debated.estimate == pytest.approx(accuracy)
    assert (found.better.estimate, found.worse.estimate) == (pytest.approx(better / 120), pytest.approx(worse / 120))


def test_a_judge_who_minds_the_place_alone_is_right_by_half_whatever_is_said() -> None:
    def place(questions: Sequence[Question]) -> list[Verdict]:
        return [FIRST for _ in questions]

    alone, orders = judge_both_orders("place", place, PAIRS)
    debated, _ = judge_both_orders("place", place, hold(PAIRS, honest, 1))
    found = weigh(TRUTH, alone, debated, HOW)
    assert orders.position_bias == 1 and orders.inconsistent == 120
    assert found.alone.estimate == found.debated.estimate == 0.5
    assert found.gain == Interval(estimate=0, low=0, high=0)


def test_both_argue_at_once_for_their_own_response_and_read_earlier_rounds() -> None:
    heard: list[Side] = []

    def argue(sides: Sequence[Side]) -> list[str]:
        heard.extend(sides)
        return [f"{side.debater}{len(heard) // 2}" for side in sides]

    (told,) = hold([Pair("p", "why ?", "x", "y", ("ppo", "sft"))], argue, 2)
    assert heard == [
        Side("ppo", "why ?", "x", "y"),
        Side("sft", "why ?", "y", "x"),
        Side("ppo", "why ?", f"x{ARGUED}ppo1", f"y{ARGUED}sft1"),
        Side("sft", "why ?", f"y{ARGUED}sft1", f"x{ARGUED}ppo1"),
    ]
    assert told.response == f"x{ARGUED}ppo1{ARGUED}ppo2" and told.opponent == f"y{ARGUED}sft1{ARGUED}sft2"


def test_accuracy_by_hand() -> None:
    truth = [FIRST, FIRST, SECOND, SECOND, FIRST, FIRST]
    alone = np.array([1.0, 0.0, 0.5, 1.0, math.nan, 0.0])
    debated = np.array([1.0, 0.5, 0.0, 1.0, 1.0, math.nan])
    found = weigh(truth, alone, debated, HOW)
    assert found.pairs == 4  # the last two lack one verdict each
    assert (found.alone.estimate, found.debated.estimate) == (1.5 / 4, 2.5 / 4)
    assert (found.gain.estimate, found.better.estimate, found.worse.estimate) == (0.25, 0.5, 0.0)


def test_the_gain_is_paired_and_accuracies_have_wilson_intervals() -> None:
    alone = np.array([1.0] * 8 + [0.0] * 2)
    same = weigh([FIRST] * 10, alone, alone, HOW)
    assert same.gain == Interval(estimate=0, low=0, high=0)
    assert (same.alone.low, same.alone.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))


def test_without_a_verdict_there_is_no_figure() -> None:
    with pytest.raises(DataError, match="no values"):
        weigh([FIRST], np.array([math.nan]), np.array([1.0]), HOW)


def effect(pairs: int, low: float, high: float) -> DebateEffect:
    share = Interval(estimate=0.5, low=0.4, high=0.6)
    return DebateEffect(pairs, share, share, Interval(estimate=(low + high) / 2, low=low, high=high), share, share)


@pytest.mark.parametrize(
    ("found", "control", "sentence"),
    [
        (effect(FEWEST_PAIRS, 0.01, 0.1), None, "Debate raises the judge's accuracy."),
        (effect(FEWEST_PAIRS, -0.1, -0.01), None, "Debate lowers the judge's accuracy."),
        (effect(FEWEST_PAIRS, -0.01, 0.1), None, "No effect of debate is found"),
        (effect(FEWEST_PAIRS - 1, 0.01, 0.1), None, "No conclusion: 99 judged pairs, expected at least 100."),
        (effect(FEWEST_PAIRS, 0.01, 0.1), effect(FEWEST_PAIRS, 0.01, 0.2), "Debate raises"),
        (
            effect(FEWEST_PAIRS, -0.1, 0.1),
            effect(FEWEST_PAIRS, 0.0, 0.2),
            "No conclusion: even debaters who tell the truth",
        ),
    ],
)
def test_the_rule(found: DebateEffect, control: DebateEffect | None, sentence: str) -> None:
    assert conclusion(found, control).startswith(sentence)


def test_a_text_that_looks_like_a_placeholder_stays() -> None:
    side = Side("ppo", "what is {own} ?", "{other}", "x")
    assert side.filled("{prompt}|{own}|{other}|{debater}") == "what is {own} ?|{other}|x|{debater}"
