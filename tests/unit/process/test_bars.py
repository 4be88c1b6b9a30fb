"""Several stages at once, drawn by one process: on a terminal without tearing each other, in a log one line at a time."""

import io
import logging
import re
from pathlib import Path

import pytest
from rich.console import Console

from flows.process import bars
from flows.process.bars import Bars, in_words, state_of
from tasks.engine.progress import Reporter, read_progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    return now


def test_a_line_at_each_start_and_end_and_one_a_minute(
    tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "plumbline")
    shown = Bars(tmp_path, bars=False)
    ppo, sft = Reporter(tmp_path, "ppo_ptx"), Reporter(tmp_path, "sft")
    ppo.count(100, "step", checkpoints=tmp_path)
    shown.look()
    for step in range(1, 4):
        clock[0] += 30
        ppo.at(step, {"objective/score": 1.5, "objective/kl": 0.25})
        shown.look()
    sft.end("made")
    Reporter(tmp_path, "data_prep").end("found")
    shown.look()
    ppo.end("ended")
    shown.look()
    shown.look()
    assert [record.getMessage() for record in caplog.records] == [
        "ppo_ptx: started",
        "sft: started",
        "ppo_ptx: 2 of 100 steps, reward 1.5, KL 0.25, about 49 min left",
        "sft: at work",
        "sft: done in 90 s",
        "data_prep: found in the store",
        "ppo_ptx: ended after 90 s",
    ]


def test_two_bars_share_a_terminal(tmp_path: Path, clock: list[float]) -> None:
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=120, legacy_windows=False)
    ppo, sft = Reporter(tmp_path, "ppo_ptx"), Reporter(tmp_path, "sft")
    ppo.count(4, "step")
    sft.count(8, "step")
    with Bars(tmp_path, bars=True, console=console):
        clock[0] += 60
        ppo.at(1, {"objective/score": 0.7, "objective/kl": 3.21})
        sft.at(2)
    moves = re.sub(r"\x1b\[(\d+A|2K)", "\n", terminal.getvalue())  # a drawing ends where the cursor goes up
    frames = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", moves).replace("\r", "").splitlines()
    last = [line for line in frames if line.strip()][-2:]
    assert last[0].startswith("ppo_ptx ") and "1 of 4 steps, reward 0.7, KL 3.21, about 3 min left" in last[0]
    assert last[1].startswith("sft ") and "2 of 8 steps" in last[1]


def test_a_bar_names_what_is_waited_for_until_a_stage_begins(tmp_path: Path, clock: list[float]) -> None:
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=120, legacy_windows=False)
    with Bars(tmp_path, bars=True, console=console, waiting_for="the server") as shown:
        clock[0] += 3
        shown.look()
        assert "3.0 s: the server" in terminal.getvalue()
        Reporter(tmp_path, "sft")
        shown.look()
        terminal.truncate(0)
        shown.look()
        assert "sft" in terminal.getvalue() and "the server" not in terminal.getvalue()


def test_log_lines_go_above_the_bars_and_the_streams_come_back(tmp_path: Path) -> None:
    import sys

    handler = logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(handler)
    try:
        console = Console(file=io.StringIO(), force_terminal=True)
        before = handler.stream
        with Bars(tmp_path, bars=True, console=console):
            assert handler.stream is sys.stdout and handler.stream is not before
        assert handler.stream is before
    finally:
        logging.getLogger().removeHandler(handler)


def test_words() -> None:
    assert [in_words(seconds) for seconds in (0.26, 42.4, 130, 7200, 12_000)] == [
        "0.3 s",
        "42 s",
        "2 min",
        "2 h 0 min",
        "3 h 20 min",
    ]


def test_a_stage_that_waits_or_is_done(tmp_path: Path, clock: list[float]) -> None:
    Reporter(tmp_path, "sft")
    [note] = read_progress(tmp_path)
    assert state_of(note, clock[0]) == "at work"
    assert state_of(note._replace(state="made", ended=clock[0] + 61), clock[0] + 99) == "done in 61 s"
    assert bars.counted(note._replace(unit="set", total=1)) == "0 of 1 set"
