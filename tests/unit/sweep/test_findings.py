"""What a sweep says about its points, on made-up points whose answers were found by hand."""

import pytest

from flows.sweep.findings import measured, shown, weigh
from tests.unit.sweep.points import grid, point, weighing


def test_front_dominance_and_best_of_a_grid() -> None:
    findings = weigh(grid(), weighing())
    assert findings.judge == "gold"
    assert findings.objectives == ["win_rate", "kl", "regression"]
    assert findings.front == [0, 1, 2, 4, 5, 6]
    assert findings.dominated[3] == [4]
    assert findings.dominated[7] == [6]
    assert 8 not in findings.dominated
    assert findings.best == 4  # 0, 1 and 3 win more or as much, but lose more than one benchmark point
    assert "6 of 8 points are on the Pareto front" in findings.verdict
    assert (
        "#4 ppo.beta=0.02 ppo.gamma=1 (win rate 64.0 %, KL 1.50 nats, benchmark regression +1.0 points)"
        in findings.verdict
    )


def test_the_constraint_moves_the_best_point() -> None:
    assert weigh(grid(), weighing(max_regression=0.0)).best == 2
    assert weigh(grid(), weighing(max_regression=0.03)).best == 1
    assert weigh(grid(), weighing(max_regression=1.0)).best == 0


def test_a_loss_of_exactly_the_limit_is_permitted_whatever_rounding_adds() -> None:
    assert weigh([point(0, {}, regression=0.1 + 0.2 - 0.3 + 0.01)], weighing(max_regression=0.01)).best == 0


def test_no_point_within_the_constraint() -> None:
    findings = weigh([point(0, {"a": "1"}, regression=0.08), point(1, {"a": "2"}, regression=0.05)], weighing())
    assert findings.best is None
    assert (
        "No point keeps a benchmark regression of at most 1 point against SFT; the least is +5.0 points at #1 a=2"
        in (findings.verdict)
    )


def test_equal_quality_is_settled_by_kl_then_by_order() -> None:
    twins = [point(0, {}, 0.6, kl=2.0), point(1, {}, 0.6, kl=1.0), point(2, {}, 0.6, kl=1.0)]
    findings = weigh(twins, weighing())
    assert findings.best == 1
    assert findings.front == [1, 2]


def test_the_other_baseline_and_the_other_quality() -> None:
    assert measured(point(0, {}, 0.6, regression=0.02).metrics, "gold", weighing(regression_against="base")) == (
        pytest.approx({"win_rate": 0.6, "score": 1.2, "kl": 1.0, "regression": 0.07})
    )
    records = [point(0, {}, 0.6), point(1, {}, 0.7)]
    assert weigh(records, weighing(judges=["reward_model"])).best == 0  # the made-up reward model disagrees with gold
    assert weigh(records, weighing(quality="score")).best == 1


def test_the_first_judge_that_judged_every_point_is_used() -> None:
    records = [point(0, {}), point(1, {})]
    without = records[1].model_copy(
        update={"metrics": {name: value for name, value in records[1].metrics.items() if "gold" not in name}}
    )
    assert weigh([records[0], without], weighing()).judge == "reward_model"
    findings = weigh(records, weighing(judges=["people"]))
    assert findings.judge is None and findings.best is None
    assert "no judge of people" in findings.verdict


def test_without_benchmarks_regression_is_left_out_and_no_best_point_is_named() -> None:
    findings = weigh([point(0, {}, 0.6, regression=None), point(1, {}, 0.5, regression=None)], weighing())
    assert findings.objectives == ["win_rate", "kl"]
    assert findings.best is None
    assert "benchmark regression was not measured" in findings.notes[0]
    assert "no benchmarks were measured" in findings.verdict


def test_points_that_the_prompts_cannot_tell_apart_are_named() -> None:
    records = [point(0, {}, 0.62), point(1, {}, 0.60), point(2, {}, 0.55), point(3, {}, 0.61, regression=0.2)]
    notes = weigh(records, weighing()).notes
    assert len(notes) == 2 and "interval of #1 reaches" in notes[0]


def test_nothing_finished() -> None:
    findings = weigh([point(0, {}, state="failed"), point(1, {}, state="waiting")], weighing())
    assert findings.verdict == "No point finished." and findings.front == []


def test_a_gain_is_a_negative_regression_and_nothing_is_no_minus_zero() -> None:
    assert shown("regression", -0.012) == "\N{MINUS SIGN}1.2 points"
    assert str(measured({"policy/benchmarks_vs_sft": 0.0}, "gold", weighing())["regression"]) == "0.0"
