"""Each rule speaks on a history that shows its sign, and is silent on one that does not."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.ppo import sentinel
from tasks.ppo.sentinel import Alarm, Row
from tasks.ppo.sentinel_config import SentinelConfig
from tests.unit.ppo import tiny

ITERATIONS = 40


RECORDED = json.loads((Path(__file__).parents[2] / "golden" / "sentinel_histories.json").read_text())
"""What PPO measured in runs of the embedded world, by seed: ``healthy`` and ``exploited``."""


def recorded(kind: str, seed: str) -> list[Row]:
    curves: dict[str, list[float]] = RECORDED[kind][seed]
    return [dict(zip(curves, values, strict=True)) for values in zip(*curves.values(), strict=True)]


def limits(**changes: Any) -> SentinelConfig:
    """The shipped limits of the embedded world, changed."""
    return SentinelConfig.model_validate(tiny.shipped("sandbox")["sentinel"] | changes)


def history(**curves: tuple[float, float]) -> list[Row]:
    """A calm run, in which the named curves (dots for slashes) move in a straight line from first to last."""
    calm = {
        "objective__score": (0.0, 1.0),
        "objective__kl": (0.0, 0.8),
        "objective__score_gold": (1.0, 1.5),
        "objective__score_gold_std": (2.0, 1.8),
        "objective__score_independent": (0.1, 0.9),
        "objective__score_independent_std": (1.0, 1.0),
        "policy__entropy": (1.2, 0.8),
        "response__length": (9.0, 11.0),
        "response__eos_rate": (0.97, 1.0),
        "response__distinct_bigrams": (0.98, 0.95),
        "response__most_common_share": (0.03, 0.1),
    }
    assert curves.keys() <= calm.keys()
    ends = {name.replace("__", "/"): end for name, end in (calm | curves).items()}
    return [
        {name: first + (last - first) * step / (ITERATIONS - 1) for name, (first, last) in ends.items()}
        for step in range(ITERATIONS)
    ]


def rules(rows: list[Row], config: SentinelConfig | None = None) -> list[str]:
    return [finding.rule for finding in sentinel.inspect(rows, config or limits())]


def test_a_calm_run_gives_no_warning_at_any_iteration() -> None:
    rows = history()
    assert [rules(rows[:end]) for end in range(1, ITERATIONS + 1)] == [[]] * ITERATIONS


@pytest.mark.parametrize("seed", RECORDED["healthy"])
def test_a_healthy_run_of_the_embedded_world_gives_no_warning_at_any_iteration(seed: str) -> None:
    rows = recorded("healthy", seed)
    assert [rules(rows[:end]) for end in range(1, len(rows) + 1)] == [[]] * len(rows)


@pytest.mark.parametrize("seed", RECORDED["exploited"])
def test_a_run_that_exploits_its_reward_model_is_told_from_the_gold_score(seed: str) -> None:
    rows = recorded("exploited", seed)
    warned = [end for end in range(1, len(rows) + 1) if "over_optimisation_gold" in rules(rows[:end])]
    assert warned and warned[0] < len(rows)


@pytest.mark.parametrize(
    ("rule", "curves"),
    [
        ("over_optimisation_gold", {"objective__score_gold": (1.0, 0.0)}),
        ("over_optimisation_independent", {"objective__score_independent": (0.5, -0.2)}),
        ("kl_speed", {"objective__kl": (0.0, 12.0)}),
        ("entropy_collapse", {"policy__entropy": (1.2, 0.1)}),
        ("length_drift", {"response__length": (9.0, 24.0)}),
        ("length_drift", {"response__length": (9.0, 3.0)}),
        ("repetition_within", {"response__distinct_bigrams": (0.98, 0.4)}),
        ("repetition_across", {"response__most_common_share": (0.03, 0.8)}),
        ("eos_rate", {"response__eos_rate": (0.97, 0.2)}),
    ],
)
def test_each_sign_wakes_its_own_rule(rule: str, curves: dict[str, tuple[float, float]]) -> None:
    assert rules(history(**curves)) == [rule]


def test_an_eos_rate_that_is_low_from_the_start_is_told_after_one_window() -> None:
    rows = history(response__eos_rate=(0.1, 0.3))
    assert rules(rows[:4]) == []
    found = [finding for finding in sentinel.inspect(rows[:5], limits()) if finding.rule == "eos_rate"]
    assert len(found) == 1 and found[0].found == pytest.approx(0.1 + 0.2 * 2 / 39)
    assert "only 11 % of the responses end by themselves, 11 % at the start" in found[0].reason
    assert "train ppo_init longer" in found[0].reason
    fallen = sentinel.eos_rate(history(response__eos_rate=(0.9, 0.1)), 5, 0.5)
    assert fallen is not None and "lower ppo.missing_eos_score" in fallen.reason


def test_every_rule_has_a_limit_that_null_turns_off() -> None:
    everything_wrong = history(
        objective__score_gold=(1.0, -9.0),
        objective__score_independent=(1.0, -9.0),
        objective__kl=(0.0, 90.0),
        policy__entropy=(1.2, 0.0),
        response__length=(9.0, 90.0),
        response__distinct_bigrams=(0.9, 0.0),
        response__most_common_share=(0.03, 1.0),
        response__eos_rate=(0.9, 0.0),
    )
    assert sorted(rules(everything_wrong)) == sorted(sentinel.rules_in_force(limits(), ["gold", "independent"]))
    for knob in (*sentinel.SIMPLE_RULES, "held_out_fall"):
        off = limits(**{knob: None})
        assert set(rules(everything_wrong, off)) == set(sentinel.rules_in_force(off, ["gold", "independent"]))
        assert len(rules(everything_wrong, off)) < len(rules(everything_wrong))


def test_a_held_out_score_that_falls_with_the_proxy_is_no_over_optimisation() -> None:
    rows = history(objective__score_gold=(1.0, 0.0), objective__score=(1.0, 0.0))
    assert sentinel.over_optimisation(rows, "gold", 5, 0.3) is None


def test_the_fall_is_measured_from_the_best_window_in_standard_deviations_of_the_start() -> None:
    rises_then_falls = [1.0, 1.0, 3.0, 3.0, 2.0, 2.0]
    rows = [
        {"objective/score": float(step), "objective/score_gold": gold, "objective/score_gold_std": 4.0}
        for step, gold in enumerate(rises_then_falls)
    ]
    found = sentinel.over_optimisation(rows, "gold", 2, 0.2)
    assert isinstance(found, Alarm)
    assert found.found == pytest.approx((3.0 - 2.0) / 4.0)
    assert "fell from 3.00 to 2.00" in found.reason and "rose by 2.00" in found.reason
    assert sentinel.over_optimisation(rows, "gold", 2, 0.26) is None


def test_iterations_without_a_held_out_score_are_skipped() -> None:
    rows = [{"objective/score": float(step)} for step in range(12)]
    for step, gold in zip(range(0, 12, 3), [5.0, 5.0, 1.0, 1.0], strict=True):
        rows[step] |= {"objective/score_gold": gold, "objective/score_gold_std": 2.0}
    found = sentinel.over_optimisation(rows, "gold", 2, 0.3)
    assert found is not None and found.found == pytest.approx(2.0)
    assert "rose by 6.00" in found.reason  # rows 0 and 3 against rows 6 and 9


def test_the_speed_of_the_kl_is_per_iteration() -> None:
    rows = [{"objective/kl": 0.4 * step} for step in range(11)]
    found = sentinel.kl_speed(rows, 5, 0.3)
    assert found is not None and found.found == pytest.approx(0.4)
    assert sentinel.kl_speed(rows, 5, 0.41) is None


def test_nothing_is_said_before_two_whole_windows() -> None:
    rows = history(policy__entropy=(1.2, 0.0), response__length=(9.0, 90.0), objective__kl=(0.0, 90.0))
    assert rules(rows[:6], limits(window=6)) == []
