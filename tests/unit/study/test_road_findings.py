"""The roads side by side: points that share all but themselves, and a verdict by a rule that was fixed beforehand."""

import math
from typing import get_args

import pytest

from flows.config import load
from flows.study.page import findings_of
from flows.study.points import points_of
from flows.study.records import STAGES, fingerprint_of
from flows.study.results import Results, StudyFinding
from flows.study.road_findings import above_best_of_n, best_of_n_at, standing
from tasks.engine.fingerprint import source_digests
from tests.unit.study.synthetic import NOISE, OPPOSITE, PUBLISHED, study_config, synthetic

CONFIG = study_config("scale=roads")
POINTS = {point.setting: point for point in points_of(CONFIG) if point.seed == 1}
CURVE = [
    {"n": 1.0, "kl": 0.0, "gold": 1.0},
    {"n": 4.0, "kl": 0.64, "gold": 1.8},
    {"n": 16.0, "kl": 1.84, "gold": 2.0},
]


def finding(results: Results) -> StudyFinding:
    (found,) = findings_of(results)
    assert found.key == "rival_roads"
    return found


def test_every_road_has_a_point_that_differs_from_the_reference_in_its_rival_alone() -> None:
    roads = ["rloo", "grpo", "dpo", "rejection_sampling", "random_control"]
    assert list(POINTS) == ["beta=0.3 gamma=1", "beta=0.3 gamma=0", *(f"road={road}" for road in roads)]
    reference = load(list(POINTS["beta=0.3 gamma=1"].overrides))
    for road in roads:
        point = POINTS[f"road={road}"]
        config = load(list(point.overrides))
        assert point.row == road and config.model_copy(update={"rivals": []}) == reference
        assert config.rivals == (["rejection_sampling"] if road == "random_control" else [road])
    both = [POINTS[f"road={road}"] for road in roads[-2:]]
    assert both[0].overrides == both[1].overrides
    assert fingerprint_of(both[0], config) != fingerprint_of(both[1], config)


def test_the_roads_draw_as_many_responses_and_start_where_best_of_n_starts() -> None:
    config = load(list(POINTS["road=rejection_sampling"].overrides))
    knobs = config.rejection_sampling
    assert knobs.samples_per_prompt * (knobs.max_prompts or 0) == config.ppo.episodes
    assert all(run.episodes == config.ppo.episodes for run in config.ppo_runs.values())
    assert (
        "ppo_init" not in config.fine_tuning_runs
        and config.evaluation.best_of_n_prompts == config.evaluation.test_prompts
    )


def test_numbers_depend_on_the_source_of_every_stage_that_makes_them() -> None:
    for kind, stages in STAGES.items():
        for stage in stages:
            assert source_digests(f"tasks.{stage}"), f"{kind}: tasks.{stage} is no stage"


def test_published_numbers_reproduce_and_opposite_ones_do_not() -> None:
    found = finding(synthetic(CONFIG, PUBLISHED))
    assert found.status == "reproduced", found.claims
    assert [row[0] for row in found.rows] == [
        *("PPO-ptx", "PPO (gamma = 0)", "RLOO", "GRPO", "DPO", "Rejection sampling", "Random samples")
    ]
    assert finding(synthetic(CONFIG, OPPOSITE)).status == "not reproduced"
    assert finding(synthetic(CONFIG, NOISE)).status != "reproduced"
    two = finding(synthetic(CONFIG, PUBLISHED, keep=lambda point: point.seed < 3))
    assert two.status == "not measured" and "At equal samples: not measured with enough seeds." in two.notes
    assert "road=dpo seed=3: not run yet" in two.missing
    assert finding(synthetic(CONFIG, PUBLISHED, keep=lambda point: False)).status == "not measured"


def test_the_table_and_the_answer_follow_the_rule() -> None:
    found = finding(synthetic(CONFIG, PUBLISHED))
    places = {row[0]: row[found.headings.index("at equal samples")] for row in found.rows}
    assert places["DPO"] == places["Rejection sampling"] == "behind" and places["Random samples"] == "–"
    assert [places[road] for road in ("PPO-ptx", "PPO (gamma = 0)", "RLOO", "GRPO")].count("best") == 1
    (answer,) = [note for note in found.notes if note.startswith("At equal samples")]
    assert answer.endswith("DPO, Rejection sampling.") and "; behind it " in answer
    assert next(row[found.headings.index("at equal KL")] for row in found.rows if row[0] == "DPO") == "best"


def test_a_road_is_behind_only_where_every_seed_s_difference_tells() -> None:
    # Differences to a: b -1, -1.1, -0.9; c -1, 0.5, -0.4, whose interval holds 0; d has two seeds in common.
    of = {
        "a": {1: 2.0, 2: 2.0, 3: 2.0},
        "b": {1: 1.0, 2: 0.9, 3: 1.1},
        "c": {1: 1.0, 2: 2.5, 3: 1.6},
        "d": {1: 9.0, 2: 9.0},
    }
    assert standing(of, 0.9, 3) == {"a": "best", "b": "behind", "c": "level"}
    assert standing({"d": of["d"]}, 0.9, 3) == {}


@pytest.mark.parametrize(
    ("kl", "gold"),
    # by hand: sqrt(0.64) = 0.8, sqrt(1.84) = 1.356466; sqrt(0.16) = 0.4 is half of the first piece
    [(0.0, 1.0), (-0.05, 1.0), (0.16, 1.4), (0.64, 1.8), (1.0, 1.8 + 0.2 * 0.2 / (math.sqrt(1.84) - 0.8)), (1.9, None)],
)
def test_best_of_n_at_a_kl(kl: float, gold: float | None) -> None:
    assert best_of_n_at(CURVE, kl) == (None if gold is None else pytest.approx(gold))
    assert best_of_n_at([], kl) is None


def test_a_road_beyond_the_last_point_is_left_out_and_named() -> None:
    results = synthetic(CONFIG, PUBLISHED)
    for record in results.records("road=dpo").values():
        record.metrics["policy/kl"] = 9.0
    assert above_best_of_n(results, "road=dpo") == {}
    assert "Beyond the last point of best of n in some seed, and left out there: DPO." in finding(results).notes


def test_only_known_roads_can_be_asked_for() -> None:
    from flows.roads import Rival

    assert set(CONFIG.grid.roads) == set(get_args(Rival))
