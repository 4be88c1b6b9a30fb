import json
from pathlib import Path

import pytest

from tasks.engine import progress
from tasks.engine.progress import Reporter, read_progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "time", lambda: now[0])
    return now


def test_the_last_steps_tell_how_long_the_rest_takes(tmp_path: Path, clock: list[float]) -> None:
    report = Reporter(tmp_path, "ppo")
    report.count(10, "step", done=4, checkpoints=tmp_path / "checkpoints")
    clock[0] += 5  # reading the checkpoint is no step
    report.at(4)
    [note] = read_progress(tmp_path)
    assert note.left(clock[0]) is None and note.step_left(clock[0]) is None
    clock[0] += 60
    report.at(5, {"objective/score": 0.51234, "objective/kl": 2.5, "train/other": 1.0})
    clock[0] += 80
    report.at(6)
    [note] = read_progress(tmp_path)
    assert note.step_seconds == 70 and note.done == 6 and note.metrics == "reward 0.512, KL 2.5"
    assert note.step_left(clock[0] + 20) == 50 and note.left(clock[0] + 20) == 50 + 3 * 70
    assert note.step_left(clock[0] + 500) == 0  # late: it may end at any moment


def test_notes_are_written_now_and_then_and_the_end_always(tmp_path: Path, clock: list[float]) -> None:
    report = Reporter(tmp_path, "sft")
    report.count(100, "step")
    for step in range(1, 100):
        clock[0] += 0.001
        report.at(step)
        assert read_progress(tmp_path)[0].done == 0
    report.at(100)
    assert read_progress(tmp_path)[0].done == 100
    report.end("made")
    [note] = read_progress(tmp_path)
    assert note.state == "made" and note.ended == clock[0]


def test_what_counts_parts_counts_them_and_a_stage_without_a_run_tells_nobody(tmp_path: Path) -> None:
    report = Reporter(tmp_path / "run", "evaluation-sft")
    report.count(7, "part")
    for _ in range(7):
        report.update()
    [note] = read_progress(tmp_path / "run")
    assert (note.done, note.total, note.unit, note.checkpoints) == (7, 7, "part", "")
    Reporter(None, "sft").count(3, "step")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert read_progress(None) == [] and read_progress(tmp_path / "nowhere") == []


def test_notes_come_in_the_order_of_their_stages(tmp_path: Path, clock: list[float]) -> None:
    for stage in ("sft", "data_prep"):
        Reporter(tmp_path, stage)
        clock[0] += 1
    assert [note.stage for note in read_progress(tmp_path)] == ["sft", "data_prep"]
    assert json.loads((tmp_path / "at-sft").read_text())["state"] == "running"
