"""The candidate against the champion: paired, on the same prompts."""

import pytest

from tasks.engine.errors import DataError
from tasks.gate.champion import against_champion
from tasks.results.sheet import PolicySheet
from tests.unit.results.sheets import four, sheet


def policy(name: str, gold: list[float]) -> PolicySheet:
    return sheet(name, {"sampled": four(gold), "greedy": four(gold)})


def test_worse_on_the_same_prompts_fails_and_equal_passes() -> None:
    champion = policy("champion", [float(row) for row in range(120)])  # prompts differ a lot, policies by one point
    for shift, passed in ((0.0, True), (1.0, True), (-1.0, False)):
        candidate = policy("ppo", [row + shift for row in range(120)])
        checks = against_champion(candidate, champion, "gold", ["sampled", "greedy"], 0.1, 0.95)
        assert [check.passed for check in checks] == [passed, passed]
        assert [check.found for check in checks] == [0.5 + shift / 2] * 2
        assert "on the same 120 prompts" in checks[0].reason and "evaluation.gate.champion_margin" in checks[0].reason


def test_a_judge_without_scores_is_replaced_by_one_that_is_named() -> None:
    (check,) = against_champion(policy("a", [1.0] * 3), policy("b", [1.0] * 3), "chat", ["greedy"], 0.1, 0.95)
    assert check.metric == "win_rate_vs_champion/greedy/gold_low"


def test_other_prompts_are_refused() -> None:
    with pytest.raises(DataError, match="other prompts than the candidate"):
        against_champion(policy("a", [1.0] * 3), policy("b", [1.0] * 4), "gold", ["greedy"], 0.1, 0.95)


def test_it_is_the_lower_end_that_counts() -> None:
    candidate, champion = policy("a", [1.0, 0.0] * 20), policy("b", [0.0, 1.0] * 20)  # half of 40 prompts won
    (check,) = against_champion(candidate, champion, "gold", ["greedy"], 0.1, 0.95)
    assert check.found is not None and 0.3 < check.found < 0.4 and not check.passed
