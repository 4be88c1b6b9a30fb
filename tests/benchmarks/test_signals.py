"""What signs are worth, on curves whose answer is known."""

from pathlib import Path

import pytest

from tasks.ppo.sentinel import History
from tests.benchmarks.signals import RULES, WINDOW, by_limit, by_worth, never, recorded, table, worth_of

RISE, FALL = [0.1 * step for step in range(20)], [2.0 - 0.1 * step for step in range(1, 16)]


def run(judge_follows_gold: bool) -> History:
    """Gold rises and falls, KL grows by 0.1 a step."""
    gold = RISE + FALL
    judge = gold if judge_follows_gold else [0.1 * step for step in range(len(gold))]
    return [
        {
            "step": float(step),
            "objective/score_gold": now,
            "objective/score_independent": judge[step],
            "objective/score_independent_std": 1.0,
            "objective/kl": 0.1 * step,
        }
        for step, now in enumerate(gold)
    ]


def test_a_judge_that_follows_gold_ships_the_best_window() -> None:
    kept = worth_of(by_worth(0.0, 0.2), [run(True)], [run(True)])
    assert kept[:3] == ["100", "100", "1 of 1"]
    deceived = worth_of(by_worth(0.0, 0.2), [run(False)], [run(False)])
    gold = RISE + FALL
    best = max(sum(gold[end - WINDOW : end]) / WINDOW for end in range(WINDOW, len(gold) + 1))
    assert deceived == [f"{100 * sum(gold[-WINDOW:]) / WINDOW / best:.0f}"] * 2 + ["0 of 1", "+0.0", "+0.0"]


def test_a_limit_ships_where_it_holds() -> None:
    rule = by_limit("objective/kl", lambda now, _: now > 1.0)
    assert rule(run(False)).window == 9 and rule(run(False)).held  # the mean of iterations 9 to 13 is 1.1
    assert rule(run(False)[:8]) == never(run(False)[:8])


def test_the_table_has_a_row_for_each_rule_and_needs_both_kinds(tmp_path: Path) -> None:
    rows = [{**row, "policy/entropy": 1.0, "response/length": 5.0} for row in run(True)]
    assert table({"far": [rows], "healthy": [rows]}).count("\n") == 1 + len(RULES)
    with pytest.raises(SystemExit, match="scale=brake"):
        recorded(tmp_path)
