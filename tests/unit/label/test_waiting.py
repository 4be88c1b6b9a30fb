"""Runs that wait for labels are started again when there are enough, and not before."""

import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from flows.label.waiting import wake_meanwhile, wake_runs
from flows.run import waiting
from tasks.records.labels import WAITING, Label, LabelBatch, append_label
from tests.unit.label.batches import written

RUN = UUID(int=7)


def skip(batch: LabelBatch, item_id: str) -> None:
    given = Label(
        item_id=item_id,
        labeler="ann",
        ranks=[],
        quality=[],
        flags=[],
        skipped="why",
        seconds=None,
        time=datetime(2026, 1, 2, tzinfo=UTC),
    )
    append_label(batch, given)


def waiting_for(batch: LabelBatch, labels: int) -> Path:
    place = batch.folder / WAITING / str(RUN)
    place.parent.mkdir()
    place.write_text(str(labels))
    return place


def test_a_run_is_woken_by_the_last_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[UUID] = []
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.setattr(waiting, "_wake", lambda run: woken.append(run) or True)
    batch = written(tmp_path)
    place = waiting_for(batch, 2)
    skip(batch, "salt")
    assert (wake_runs(batch.folder), woken, place.exists()) == ([], [], True)
    skip(batch, "iron")
    assert (wake_runs(batch.folder), woken, place.exists()) == ([], [RUN], False)


def test_what_cannot_be_woken_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    batch = written(tmp_path)
    place = waiting_for(batch, 1)
    skip(batch, "salt")
    assert [told.partition(":")[0] for told in wake_runs(batch.folder)] == [f"run {RUN} waits for these labels"]
    wake_meanwhile(batch.folder)
    for thread in threading.enumerate():
        if thread.name.startswith("Thread-") and not thread.daemon:
            thread.join(30)
    assert f"run {RUN} waits for these labels" in caplog.text and place.exists()


def test_a_prefect_server_that_is_away_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")

    def away(run: UUID) -> bool:
        raise httpx.ConnectError("[Errno 111] Connection refused")  # what Prefect's client lets through

    monkeypatch.setattr(waiting, "_wake", away)
    batch = written(tmp_path)
    place = waiting_for(batch, 1)
    skip(batch, "salt")
    (told,) = wake_runs(batch.folder)
    assert told == (
        f"run {RUN} waits for these labels, and Prefect at http://127.0.0.1:1/api does not answer (ConnectError): "
        "start the server, then start it again on its Prefect page"
    )
    assert place.exists()


def test_the_page_starts_without_prefect() -> None:
    program = "import sys, flows.label.__main__; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
