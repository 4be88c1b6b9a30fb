"""The brake's figures: which runs are compared, and a verdict by a rule that was fixed beforehand."""

import pytest

from flows.config import load
from flows.study.brake_findings import disturbed, share_of
from flows.study.page import findings_of
from flows.study.points import BEST_OF_BRAKED, UNBRAKED, Point, points_of
from flows.study.records import PointRecord
from flows.study.results import Results, StudyFinding
from tests.unit.study.synthetic import study_config

CONFIG = study_config("scale=brake", "grid.brakes=[stop,beta]")
POINTS = points_of(CONFIG)
GOLD = {UNBRAKED: 1.7, BEST_OF_BRAKED: 2.2, f"{UNBRAKED} brake=stop": 2.15, f"{UNBRAKED} brake=beta": 1.9}


def record(point: Point, gold: float, held: float) -> PointRecord:
    metrics = {"policy/score_gold": gold + 0.001 * point.seed, "policy/kl": 1.0}
    metrics |= {"brake/interventions": held} if "brake" in point.setting else {}
    return PointRecord(point=point, fingerprint=point.name, seconds=1.0, metrics=metrics)


def results(held_in: set[int], seeds: int = 20, healthy: float = 2.3) -> Results:
    """Runs with ``brake=beta`` keep too little; the brake holds in the healthy runs of these seeds."""
    found = {}
    for point in POINTS:
        gold = GOLD.get(point.setting, healthy if "brake" in point.setting else 2.3)
        found[point] = record(point, gold, float(point.seed in held_in or point.setting.startswith(UNBRAKED)))
    return Results(CONFIG, POINTS, {point: one for point, one in found.items() if point.seed <= seeds})


def finding(of: Results) -> StudyFinding:
    (found,) = findings_of(of)
    assert found.key == "brake"
    return found


def judgements(of: Results) -> dict[str, str]:
    return {item.claim.text: item.judgement for item in finding(of).judged}


def test_the_runs_differ_in_brake_and_selection_alone() -> None:
    settings = {point.setting: point for point in POINTS if point.seed == 2}
    assert list(settings) == [
        "beta=0.3 gamma=1",
        "over-optimised",
        "over-optimised selection=gold",
        "over-optimised brake=stop",
        "over-optimised brake=beta",
        "healthy brake=stop",
        "healthy brake=beta",
    ]
    configs = {setting: load(list(point.overrides)) for setting, point in settings.items()}
    plain = configs["over-optimised"].ppo
    assert (plain.beta, plain.gamma, plain.episodes, plain.brake, plain.selection) == (0.05, 0.0, 19200, "off", "last")
    assert configs["over-optimised brake=beta"].ppo == plain.model_copy(update={"brake": "beta"})
    assert configs["over-optimised selection=gold"].ppo == plain.model_copy(update={"selection": "gold"})
    healthy = configs["beta=0.3 gamma=1"].ppo
    assert configs["healthy brake=stop"].ppo == healthy.model_copy(update={"brake": "stop"})
    seeds = {setting: [point.seed for point in POINTS if point.setting == setting] for setting in settings}
    assert {len(of) for setting, of in seeds.items() if setting.startswith(UNBRAKED)} == {10}
    assert {len(of) for setting, of in seeds.items() if not setting.startswith(UNBRAKED)} == {20}
    assert not [point for point in points_of(study_config()) if "brake" in point.name]


def test_a_brake_that_keeps_gold_and_leaves_healthy_runs_alone() -> None:
    found = judgements(results({7}))
    assert found["Without a brake, share of the best gold score that is left"] == "holds"
    assert found["With brake=stop, share of the best gold score that is left"] == "holds"
    assert found["With brake=beta, share of the best gold score that is left"] == "contradicted"
    assert found["Healthy runs that brake=stop disturbed, of 20"] == "holds"
    assert found["Gold score of healthy runs, change with brake=stop"] == "holds"
    rows = {row[0]: row for row in finding(results({7})).rows}
    assert rows["healthy, stop"][-1] == "1 of 20" and rows["over-optimised, stop"][-1] == "10 of 10"
    assert float(rows["over-optimised, beta"][3]) == pytest.approx(100 * 1.901 / 2.201, abs=0.05)


def test_two_disturbed_runs_are_too_many_and_two_per_cent_too_much() -> None:
    assert judgements(results({7, 8}))["Healthy runs that brake=stop disturbed, of 20"] == "contradicted"
    lost = judgements(results(set(), healthy=2.3 * 0.98))
    assert lost["Gold score of healthy runs, change with brake=stop"] == "contradicted"
    assert set(judgements(results(set(), seeds=2)).values()) == {"not measured"}
    assert disturbed(results(set()), "stop", {1: 0.0, 2: 0.0}).judgement == "not measured"


def test_nothing_has_no_share() -> None:
    assert share_of({1: 1.0, 2: 1.0, 3: 1.0}, {1: 2.0, 2: 0.0}) == {1: 0.5}
