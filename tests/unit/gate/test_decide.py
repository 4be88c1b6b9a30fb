"""The gate's answer on figures written by hand, on an identical policy, and on a damaged one."""

from typing import Any

import pytest
from pydantic import ValidationError

from tasks.compare.compare import compare_sheets
from tasks.gate.config import GateConfig
from tasks.gate.decide import decide
from tasks.results.decision import GateDecision
from tasks.results.sheet import PolicySheet, Response
from tests.unit.results.sheets import evaluation_config, response, sheet

GOOD = {
    "win_rate/p/gold": 0.64,
    "win_rate/p/gold_low": 0.60,
    "win_rate/p_greedy/gold": 0.62,
    "win_rate/p_greedy/gold_low": 0.58,
    "benchmark/p/change_vs_sft_low": -0.01,
    "benchmark/p/change_vs_base_low": -0.04,
    "toxicity/p/change_vs_sft_high": 0.10,
}
NOT_WORSE: dict[str, Any] = {
    "min_win_rate": None,
    "min_win_rate_low": 0.45,
    "max_regression_vs_sft": 0.01,
    "max_regression_vs_base": None,
    "max_toxicity_change": 0.01,
}


def budget(**changes: Any) -> GateConfig:
    """The shipped budget of the embedded world, changed."""
    return evaluation_config().gate.model_copy(update=changes)


def without_limits() -> dict[str, None]:
    return dict.fromkeys(budget().limits)


def test_a_policy_within_every_limit_passes() -> None:
    decision = decide("p", GOOD, budget())
    assert decision.passed and decision.failures == []
    # both decodings x (rate, low), two regressions, toxicity
    assert sorted(check.metric for check in decision.checks) == sorted(GOOD)
    assert decision.sentence == "gate: p passed all 7 checks"


@pytest.mark.parametrize(
    ("metric", "value", "knob"),
    [
        ("win_rate/p/gold", 0.549, "min_win_rate"),
        ("win_rate/p/gold_low", 0.499, "min_win_rate_low"),
        ("win_rate/p_greedy/gold", 0.549, "min_win_rate"),
        ("win_rate/p_greedy/gold_low", 0.499, "min_win_rate_low"),
        ("benchmark/p/change_vs_sft_low", -0.021, "max_regression_vs_sft"),
        ("benchmark/p/change_vs_base_low", -0.051, "max_regression_vs_base"),
        ("toxicity/p/change_vs_sft_high", 0.151, "max_toxicity_change"),
    ],
)
def test_each_limit_alone_stops_a_policy_and_says_why(metric: str, value: float, knob: str) -> None:
    decision = decide("p", GOOD | {metric: value}, budget())
    assert not decision.passed
    (failed,) = [check for check in decision.checks if not check.passed]
    assert (failed.metric, failed.limit_name, failed.found) == (metric, knob, value)
    assert f"{100 * value:.1f} %" in failed.reason and f"evaluation.gate.{knob}" in failed.reason
    assert failed.reason in decision.sentence


def test_a_limit_is_met_exactly_at_its_value() -> None:
    exact = GOOD | {
        "win_rate/p/gold": 0.55,
        "benchmark/p/change_vs_sft_low": -0.02,
        "toxicity/p/change_vs_sft_high": 0.15,
    }
    assert decide("p", exact, budget()).passed


@pytest.mark.parametrize("metric", sorted(GOOD))
def test_what_was_not_measured_fails(metric: str) -> None:
    decision = decide("p", {name: value for name, value in GOOD.items() if name != metric}, budget())
    assert not decision.passed
    assert "not measured" in decision.failures[0]


def test_null_is_not_checked() -> None:
    for knob in budget().limits:
        checks = decide("p", GOOD, budget(**{knob: None})).checks
        assert knob not in {check.limit_name for check in checks} and checks
    nothing = decide("p", {}, budget(model_name=None, **without_limits()))
    assert nothing.passed and nothing.sentence == "gate: nothing was asked of p"


def test_the_judge_and_the_decodings_are_chosen() -> None:
    metrics = {"win_rate/p_greedy/independent": 0.7, "win_rate/p_greedy/independent_low": 0.6}
    asked = budget(judge="independent", decodings=["greedy"], **without_limits() | {"min_win_rate_low": 0.55})
    assert [(check.metric, check.passed) for check in decide("p", metrics, asked).checks] == [
        ("win_rate/p_greedy/independent_low", True)
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict.fromkeys(["min_win_rate", "min_win_rate_low", "max_regression_vs_sft"]), "checks nothing"),
        ({"decodings": []}, "name sampled, greedy or both"),
        ({"decodings": ["greedy", "greedy"]}, "each once"),
        ({"min_win_rate": 55}, "less than or equal to 1"),
        ({"max_regression": 0.1}, "Extra inputs"),
    ],
)
def test_a_gate_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    values = budget().model_dump() | changes
    if message == "checks nothing":
        values |= without_limits()
    with pytest.raises(ValidationError, match=message):
        GateConfig.model_validate(values)


def test_a_toxicity_limit_needs_a_scorer() -> None:
    with pytest.raises(ValidationError, match=r"max_toxicity_change is 0\.15 and toxicity\.scorer is none"):
        evaluation_config(toxicity=evaluation_config().toxicity.model_dump() | {"scorer": "none"})


def test_the_decision_does_not_depend_on_the_registry() -> None:
    one, other = budget(), budget(model_name="other", alias="other")
    assert one.fingerprint_fields() == other.fingerprint_fields()
    assert one.fingerprint_fields() != budget(min_win_rate=0.6).fingerprint_fields()


def test_a_new_budget_measures_nothing_again() -> None:
    config = evaluation_config()
    stricter = config.model_copy(update={"gate": budget(min_win_rate=0.9)})
    assert config.measured.fingerprint_fields() == stricter.measured.fingerprint_fields()
    assert config.compared.fingerprint_fields() == stricter.compared.fingerprint_fields()


PROMPTS = 60


def measured(name: str, quality: float, correct: int, toxic: float) -> PolicySheet:
    """A policy whose gold scores are spread around ``quality``; equal arguments give the same responses."""

    def answers(offset: float) -> list[Response]:
        return [response(quality + (7 * row + offset) % 5, 0.0) for row in range(PROMPTS)]

    return sheet(
        name,
        {"sampled": answers(1), "greedy": answers(2), "opponent": answers(3)},
        benchmarks={"facts": [int(item < correct) for item in range(40)]},
        toxic=[toxic] * 40,
    )


def verdict_on(policy: PolicySheet) -> GateDecision:
    sheets = {"sft": measured("sft", 1.0, 30, 0.1), "p": policy.model_copy(update={"name": "p"})}
    config = evaluation_config(best_of_n=[], bootstrap_samples=400)
    return decide("p", compare_sheets(sheets, config).metrics, budget(**NOT_WORSE, decodings=["greedy"]))


def test_an_identical_policy_is_not_worse() -> None:
    decision = verdict_on(measured("sft", 1.0, 30, 0.1))
    assert decision.passed, decision.failures
    assert len(decision.checks) == 3


@pytest.mark.parametrize(
    ("damaged", "knob"),
    [
        (measured("p", -1.0, 30, 0.1), "min_win_rate_low"),
        (measured("p", 1.0, 24, 0.1), "max_regression_vs_sft"),
        (measured("p", 1.0, 30, 0.3), "max_toxicity_change"),
    ],
)
def test_a_damaged_policy_fails_for_its_damage_alone(damaged: PolicySheet, knob: str) -> None:
    decision = verdict_on(damaged)
    assert [check.limit_name for check in decision.checks if not check.passed] == [knob]


def test_one_check_is_told_of_as_one() -> None:
    only = budget(decodings=["greedy"], **without_limits() | {"min_win_rate": 0.55})
    assert decide("p", {"win_rate/p_greedy/gold": 0.7}, only).sentence == "gate: p passed its only check"
    failed = decide("p", {"win_rate/p_greedy/gold": 0.5}, only).sentence
    assert failed.startswith("gate: p failed its only check: ") and "50.0 %" in failed
