"""Whoever names a run of several rounds means what its last round made."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import evaluate
from flows.config import load
from flows.tools import policies
from tasks.engine.artifacts import ArtifactStore
from tasks.engine.errors import ArtifactError

MADE = ("data_prep", "sft", "reward_model-round_2", "reward_model", "ppo_ptx-round_2", "ppo_ptx")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    store = ArtifactStore(tmp_path / "artifacts")
    for stage in MADE:
        with store.publish(stage, "made", {}, {}) as draft:
            (draft.folder / "policy").mkdir()
            (draft.folder / "policy" / "of.txt").write_text(stage)
    for module in (policies, evaluate):
        monkeypatch.setattr(module, "artifacts_of", lambda uri, run: {stage: f"{stage}/made" for stage in MADE})
    return store


def test_the_policy_of_a_run_is_its_last_rounds(store: ArtifactStore, tmp_path: Path) -> None:
    found = policies.find_policy("0" * 32, load([f"tracking.root={tmp_path}"]).tracking)
    assert (found.folder / "of.txt").read_text() == "ppo_ptx-round_2"


def test_an_evaluation_is_judged_by_the_last_rounds_reward_model(store: ArtifactStore, tmp_path: Path) -> None:
    tracking = load([f"tracking.root={tmp_path}"]).tracking
    config: Any = SimpleNamespace(data="0" * 32, tracking=tracking)
    found = evaluate.artifacts_given(config)
    assert found["reward_model"].stage == "reward_model-round_2" and found["data_prep"].stage == "data_prep"


def test_a_data_set_that_is_not_there_was_made_by_no_run(store: ArtifactStore, tmp_path: Path) -> None:
    tracking = load([f"tracking.root={tmp_path}"]).tracking
    config: Any = SimpleNamespace(data="data_prep/nope", tracking=tracking)
    with pytest.raises(ArtifactError, match=r"^data: data_prep/nope is not in .*; `python -m flows.store list`"):
        evaluate.artifacts_given(config)
