import numpy as np
import pytest

from flows.study.optimisation_findings import fitted, ppo_curve
from flows.study.page import findings_of
from flows.study.points import Point, points_of
from flows.study.records import PointRecord
from flows.study.results import Results, StudyFinding
from tests.unit.study.synthetic import NOISE, OPPOSITE, PUBLISHED, record_of, study_config, synthetic

CONFIG = study_config()
KEYS = [finding.key for finding in findings_of(synthetic(CONFIG, PUBLISHED))]


def found(results: Results, key: str) -> StudyFinding:
    return next(finding for finding in findings_of(results) if finding.key == key)


def test_every_question_is_asked() -> None:
    assert KEYS == [
        "alignment_tax",
        "beta_without_ptx",
        "beta_with_ptx",
        "over_optimisation_ppo",
        "over_optimisation_best_of_n",
        "batch_element",
        "data_and_labelers",
        "sft_epochs",
        "single_choices",
    ]


def test_no_policy_is_compared_with_itself() -> None:
    """A grid whose largest beta is the reference's says nothing of larger ones, and its curve all the same."""
    keys = [
        finding.key for finding in findings_of(synthetic(study_config("grid.betas_without_ptx=[0,0.3]"), PUBLISHED))
    ]
    assert keys == [key for key in KEYS if key != "beta_without_ptx"]


@pytest.mark.parametrize("key", KEYS)
def test_published_numbers_reproduce(key: str) -> None:
    finding = found(synthetic(CONFIG, PUBLISHED), key)
    assert finding.status == "reproduced", finding.claims
    assert finding.missing == []
    assert finding.rows


@pytest.mark.parametrize("key", KEYS)
def test_opposite_numbers_do_not(key: str) -> None:
    finding = found(synthetic(CONFIG, OPPOSITE), key)
    assert finding.status == "not reproduced", finding.claims


@pytest.mark.parametrize("key", KEYS)
def test_two_seeds_decide_nothing(key: str) -> None:
    finding = found(synthetic(CONFIG, PUBLISHED, keep=lambda point: point.seed < 3), key)
    assert finding.status == "not measured"
    assert any("seed=3: not run yet" in line for line in finding.missing)


@pytest.mark.parametrize("key", KEYS)
def test_nothing_measured_is_said(key: str) -> None:
    finding = found(synthetic(CONFIG, PUBLISHED, keep=lambda point: False), key)
    assert finding.status == "not measured"
    assert finding.missing


def test_noise_is_unclear() -> None:
    statuses = {finding.key: finding.status for finding in findings_of(synthetic(CONFIG, NOISE))}
    assert statuses["beta_with_ptx"] == "unclear"
    assert "reproduced" not in {statuses[key] for key in ("beta_without_ptx", "batch_element", "single_choices")}


def test_one_wild_seed_makes_a_finding_unclear() -> None:
    results = synthetic(CONFIG, PUBLISHED)
    points = points_of(CONFIG)
    records = {point: record_of(point, PUBLISHED) for point in points}
    wild = next(point for point in points if point.setting == "beta=0.3 gamma=1" and point.seed == 2)
    metrics = {**records[wild].metrics, "policy/benchmarks_vs_base": -0.05}
    records[wild] = records[wild].model_copy(update={"metrics": metrics})
    assert found(results, "alignment_tax").status == "reproduced"
    assert found(Results(CONFIG, points, records), "alignment_tax").status == "unclear"


def test_a_history_without_gold_says_so() -> None:
    points = points_of(CONFIG)

    def without_gold(point: Point) -> PointRecord:
        record = record_of(point, PUBLISHED)
        rows = [{name: v for name, v in row.items() if name != "objective/score_gold"} for row in record.history]
        return record.model_copy(update={"history": rows})

    results = Results(CONFIG, points, {point: without_gold(point) for point in points})
    finding = found(results, "over_optimisation_ppo")
    assert finding.status == "not measured"
    assert any("holds no objective/score_gold" in line for line in finding.missing)


def test_a_negative_estimate_of_kl_is_no_distance() -> None:
    row = {"objective/kl": -0.01, "objective/score": 1.0, "objective/score_gold": 2.0}
    curve = ppo_curve([row, {**row, "objective/kl": 4.0}])
    assert curve is not None
    assert curve.distance == [0.0, 2.0]


def test_the_fitted_peak_is_the_one_that_made_the_curve() -> None:
    finding = found(synthetic(CONFIG, PUBLISHED), "over_optimisation_best_of_n")
    # Made of best-of-n scores that peak at n = 8: sqrt(log 8 - 7/8) = 1.10. The form is another, so it is near, not there.
    peaks = [float(row[finding.headings.index("gold peaks at sqrt(KL)")]) for row in finding.rows[:3]]
    assert peaks == pytest.approx([1.10] * 3, abs=0.25)


def test_fits_of_exact_curves_are_exact() -> None:
    d = np.linspace(0.1, 3.0, 30)
    for rl, gain in ((True, d * (0.8 - 0.5 * np.log(d))), (False, d * (0.8 - 0.25 * d))):
        found_fit = fitted([0.0, *d], [2.0, *(2.0 + gain)], 0.05, rl=rl)
        assert found_fit is not None
        assert found_fit.fit == pytest.approx((0.8, 0.5 if rl else 0.25))
        assert found_fit.explained == pytest.approx(1.0)
        assert found_fit.peak == pytest.approx(d[np.argmax(gain)], abs=0.06)
    rising = fitted([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 4.0, 9.0], 0.0, rl=False)
    assert rising is not None
    assert rising.peak is None


@pytest.mark.parametrize("key", ["over_optimisation_ppo", "over_optimisation_best_of_n"])
def test_each_seed_draws_gold_proxy_and_fit(key: str) -> None:
    finding = found(synthetic(CONFIG, PUBLISHED), key)
    kinds = [(trace.judge, trace.fitted) for trace in finding.panels[0].traces]
    assert kinds == [("gold labeler", False), ("reward model", False), ("gold labeler", True)] * 3
    assert len([trace for trace in finding.panels[0].traces if trace.label]) == 3
    assert [row[0] for row in finding.rows] == ["1", "2", "3", "all seeds"]


def test_the_sentence_says_what_decided() -> None:
    results = synthetic(CONFIG, PUBLISHED)
    assert found(results, "sft_epochs").sentence == "Reproduced: all 2 claims hold."
    opposite = found(synthetic(CONFIG, OPPOSITE), "beta_with_ptx")
    assert opposite.sentence.startswith("Not reproduced: the numbers contradict what was published on: Gold score at")
    assert found(synthetic(CONFIG, NOISE), "beta_with_ptx").sentence.startswith(
        "Unclear: the interval does not decide on:"
    )


def test_tables_hold_mean_and_interval() -> None:
    finding = found(synthetic(CONFIG, PUBLISHED), "alignment_tax")
    assert [row[0] for row in finding.rows] == [f"{gamma:g}" for gamma in CONFIG.grid.gammas]
    first = finding.rows[0][1]
    assert first.startswith(("-4.", "-3."))
    assert "[" in first


def test_failed_points_are_named_with_their_reason() -> None:
    points = points_of(CONFIG)
    records = {point: record_of(point, PUBLISHED) for point in points}
    broken = next(point for point in points if point.setting == "beta=3 gamma=1" and point.seed == 1)
    records[broken] = PointRecord(point=broken, fingerprint="x", error="TrainingDiverged: loss", seconds=3.0)
    finding = found(Results(CONFIG, points, records), "beta_with_ptx")
    assert finding.missing == ["beta=3 gamma=1 seed=1: failed (TrainingDiverged: loss)"]
    assert finding.status == "not measured"
