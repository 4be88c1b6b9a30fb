"""What the report page shows of a run's cost."""

from pathlib import Path

import pytest

from flows.run import page
from flows.run.page import cost_of, tokens_sampled
from flows.run.summary import StageRecord
from tasks.engine.artifacts import ArtifactStore
from tasks.engine.errors import TrackingAway

STAGES = [
    StageRecord(stage="sft", artifact="sft/a", ran=True),
    StageRecord(stage="ppo", artifact="ppo/b", ran=True),
    StageRecord(stage="gate", artifact="gate/c", ran=False),
]
FOUND = ("gate", "found in the store", "", "")


def test_minutes_tokens_and_what_was_found() -> None:
    rows = cost_of(STAGES, {"sft": 90.0, "ppo": 600.0, "gate": 1.0}, {"ppo": 12345.0}, "cpu")
    assert rows == [("sft", "1.5", "", "cpu"), ("ppo", "10.0", "12,345", "cpu"), FOUND]


def test_a_server_that_is_away_leaves_the_page_without_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise TrackingAway("no answer")

    monkeypatch.setattr(page, "stage_work", away)

    class Run:
        run_id = "run"

        class context:
            tracking_uri, experiment_id = "http://127.0.0.1:9", "1"

    seconds = page._seconds(Run())  # type: ignore[arg-type]
    unknown = "not known: MLflow was away"
    assert cost_of(STAGES, seconds, {"ppo": 7.0}, "cpu") == [
        ("sft", unknown, "", "cpu"),
        ("ppo", unknown, "7", "cpu"),
        FOUND,
    ]


def test_every_stage_that_draws_responses_has_tokens_of_its_own(tmp_path: Path) -> None:
    store, made = ArtifactStore(tmp_path), {}
    drawn = {"ppo_ptx": 84.0, "ppo_ptx-round_2": 80.0, "rejection_sampling-samples": 380.0}
    for stage in (*drawn, "sft"):
        with store.publish(stage, "a" * 20, {}, {}) as draft:
            draft.metrics.update(
                {"cost/tokens_drawn": drawn[stage]} if stage in drawn else {"cost/tokens_learned": 5.0}
            )
        assert draft.ref is not None
        made[stage] = draft.ref
    assert tokens_sampled(store, made) == drawn
