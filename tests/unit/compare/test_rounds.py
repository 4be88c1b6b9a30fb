"""The table over rounds: every round against the same baseline, and what its reward models make of its responses."""

import json
from pathlib import Path

from rich.console import Console

from tasks.compare import compare_rounds
from tasks.compare.rounds import accuracy_in, rounds_figure, rows_of
from tasks.engine.artifacts import ArtifactStore
from tasks.engine.caching import as_task
from tasks.engine.context import StageContext, StageName
from tasks.results.rounds import Rounds
from tests.unit import tiny_models
from tests.unit.compare.judges.test_in_comparison import CONFIG, published
from tests.unit.results.sheets import four, sheet, trio

ALL_WON = sheet("ppo_ptx", {"sampled": four([2, 2, 2, 2], [4, 4, 4, 4]), "greedy": four([2, 3, 2, 2])}, held_out=[3])
BETTER = trio()["ppo_ptx"].model_copy(update={"samples": ALL_WON.samples})


def test_rows_are_the_policy_rows_of_each_round() -> None:
    sheets = trio()
    found = rows_of(sheets["sft"], {2: BETTER, 1: sheets["ppo_ptx"]}, {1: (None, 0.7), 2: (0.5, 0.75)}, CONFIG.compared)
    # SFT's opponent has 1, 1, 1, 1 by gold; round 1 has 2, 2, 2, 0 and round 2 has 2, 2, 2, 2.
    assert [row.win["gold"].rate for row in found.rows] == [0.75, 1.0]
    assert [row.scores["gold"] for row in found.rows] == [1.5, 2.0]
    assert [(row.number, row.accuracy_before, row.accuracy) for row in found.rows] == [(1, None, 0.7), (2, 0.5, 0.75)]
    assert found.rows[0].kl is not None and found.rows[0].kl.estimate == 1.5
    screen = Console(width=100, record=True)
    screen.print(found.terminal())
    text = screen.export_text()
    assert "75.0 [" in text and "50.0 %" in text and [line.split()[0] for line in text.splitlines()[-2:]] == ["1", "2"]
    assert next(found.cells())[1].startswith("75.0 [") and next(found.cells())[-2:] == ["", "70.0 %"]
    assert rounds_figure(found).startswith("<?xml") and "old reward model" in rounds_figure(found)


def test_the_stage_reads_sheets_and_accuracies(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    refs = published(store, {"sft": trio()["sft"], "sheet_1": trio()["ppo_ptx"], "sheet_2": BETTER})
    for name, accuracy in (("reward_model_1", 0.7), ("reward_model_2", 0.75), ("before_2", 0.5)):
        with store.publish(name, "f" * 20, {}, {}) as draft:
            (draft.folder / "accuracy.json").write_text(json.dumps({"valid": {"accuracy": accuracy}}))
        assert draft.ref is not None
        refs[name] = draft.ref
    context = StageContext(
        store=str(store.root), tracking_uri="", experiment_id="", parent_run_id="", runtime=tiny_models.runtime()
    )
    ref = as_task(compare_rounds).fn(StageName(group="rounds"), CONFIG.compared, context, refs)
    rounds = Rounds.model_validate_json((store.open(ref) / "rounds.json").read_text())
    assert [(row.accuracy_before, row.accuracy) for row in rounds.rows] == [(None, 0.7), (0.5, 0.75)]
    assert (store.open(ref) / "rounds.svg").is_file()
    manifest = store.manifest(ref.stage, ref.fingerprint)
    assert manifest is not None
    assert manifest.metrics["rounds/2/win_rate_gold"] == 1.0 and manifest.metrics["rounds/2/accuracy_before"] == 0.5
    assert "rounds/1/accuracy_before" not in manifest.metrics


def test_nothing_counted_is_no_accuracy(tmp_path: Path) -> None:
    (tmp_path / "accuracy.json").write_text('{"valid": {"pairs": 0, "accuracy": null}}')
    assert accuracy_in(tmp_path) is None
