"""A tracking server that is away: a port that refuses, and later MLflow itself behind the same address."""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tasks.engine.context import StageContext
from tasks.engine.errors import ConfigError, DataError, TrackingAway
from tasks.engine.tracking import client, deliver, open_run, prepare, record_reuse, stage_run, start_pipeline_run
from tasks.engine.tracking.outbox import WAITING, Outbox, outbox
from tasks.engine.tracking.server import Client
from tests.unit.engine.test_tracking import RUNTIME


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path / "home"))
    outbox.cache_clear()
    return tmp_path / "home"


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Away:
    """A database that is there or not, as a test wants it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.there, self.asked = True, 0
        self.experiment = "1"
        parent = start_pipeline_run(self.uri, self.experiment, "run", {}, {})
        self.context = StageContext(
            store=str(folder),
            tracking_uri=self.uri,
            experiment_id=self.experiment,
            parent_run_id=parent,
            runtime=RUNTIME,
        )
        monkeypatch.setattr("tasks.engine.tracking.outbox.probe", self._probe)

    def _probe(self, uri: str) -> None:
        self.asked += 1
        if not self.there:
            raise TrackingAway(f"MLflow tracking at {uri}: no answer")

    def leave(self) -> None:
        self.there, outbox(self.uri)._answered = False, float("-inf")

    def come_back(self) -> None:
        self.there, outbox(self.uri)._asked_again = True, 0.0

    def runs(self, stage: str) -> list[Any]:
        found = MlflowClient(self.uri).search_runs([self.experiment], f"tags.`plumbline.stage` = '{stage}'")
        return list(found)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the experiment; to make one takes seconds."""
    folder = tmp_path_factory.mktemp("prepared")
    assert prepare(f"sqlite:///{folder / 'mlflow.db'}", "rlhf", folder / "files") == "1"
    return folder


@pytest.fixture
def server(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Away:
    for file in prepared.glob("mlflow.db*"):
        shutil.copy(file, tmp_path)
    return Away(tmp_path, monkeypatch)


def points(uri: str, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in MlflowClient(uri).get_metric_history(run_id, name)]


def test_a_server_lost_in_a_stage_is_told_everything_when_it_is_back(
    server: Away, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    page = tmp_path / "page.html"
    page.write_text("<p>page</p>")
    with caplog.at_level(logging.WARNING, "plumbline"), stage_run(server.context, "ppo", {}, {}, tmp_path / "m") as log:
        log.metrics({"kl": 0.1}, 1)
        log.flush()
        server.leave()
        for step in (2, 3, 4):
            log.metrics({"kl": step / 10}, step)
            log.flush()
            outbox(server.uri)._asked_again = 0.0  # asked again, and still away
        log.file(page)
        page.unlink()
    assert (
        sum("The run goes on" in record.message for record in caplog.records) == 1
    )  # one sentence, however much is kept
    assert points(server.uri, log.run_id, "kl") == [(1, 0.1)]
    left = deliver(server.uri)
    assert left is not None and "was not told 5 entries of 1 runs" in left  # three steps, the page, the end
    server.come_back()
    assert deliver(server.uri) is None
    assert points(server.uri, log.run_id, "kl") == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
    run = MlflowClient(server.uri).get_run(log.run_id)
    assert run.info.status == "FINISHED"
    assert [item.path for item in MlflowClient(server.uri).list_artifacts(log.run_id)] == ["page.html"]


def test_a_stage_that_begins_while_the_server_is_away_gets_its_run_later(server: Away, tmp_path: Path) -> None:
    server.leave()
    with stage_run(server.context, "sft", {"sft": {"epochs": 2}}, {"input.data": "d"}, tmp_path / "m") as log:
        log.metrics({"loss": 2.0}, 1)
    record_reuse(server.context, "adopted", {}, {}, {"final/loss": 1.0}, log.run_id)
    assert log.run_id.startswith(WAITING) and not server.runs("sft")
    server.come_back()
    assert deliver(server.uri) is None
    [run] = server.runs("sft")
    assert run.data.params == {"sft.epochs": "2"} and run.data.metrics == {"loss": 2.0}
    assert run.data.tags["mlflow.parentRunId"] == server.context.parent_run_id and run.info.status == "FINISHED"
    open_run(server.uri, log.run_id).tags({"late": "yes"})  # the name of ours goes on to mean that run
    assert MlflowClient(server.uri).get_run(run.info.run_id).data.tags["late"] == "yes"
    assert len(server.runs("adopted")) == 1


def test_letters_survive_the_process_that_wrote_them(server: Away, tmp_path: Path) -> None:
    """A killed process leaves half a line; its successor goes on in the run and repeats a step."""
    server.leave()
    killed = stage_run(server.context, "sft", {}, {}, tmp_path / "m").__enter__()
    killed.metrics({"loss": 3.0}, 1)
    killed.flush()
    box = outbox(server.uri)
    with box._journal(killed.run_id).open("a") as file:
        file.write('{"do": "met')
    outbox.cache_clear()
    server.come_back()
    assert deliver(server.uri) is None
    with stage_run(server.context, "sft", {}, {}, tmp_path / "m") as log:
        log.metrics({"loss": 3.0}, 1)
        log.metrics({"loss": 2.0}, 2)
    [run] = server.runs("sft")
    assert points(server.uri, run.info.run_id, "loss") == [(1, 3.0), (2, 2.0)]


def test_a_step_is_not_told_twice_when_the_server_was_away_at_the_restart(server: Away, tmp_path: Path) -> None:
    killed = stage_run(server.context, "sft", {}, {}, tmp_path / "m").__enter__()
    killed.metrics({"loss": 3.0}, 1)
    killed.flush()
    server.leave()
    outbox(server.uri)._keep(killed.run_id, {"do": "tags", "values": {"a": "b"}})
    with stage_run(server.context, "sft", {}, {}, tmp_path / "m") as log:
        log.metrics({"loss": 3.0}, 1)
        log.metrics({"loss": 2.0}, 2)
    server.come_back()
    assert deliver(server.uri) is None
    assert points(server.uri, log.run_id, "loss") == [(1, 3.0), (2, 2.0)]


def test_a_server_that_is_away_is_asked_seldom(server: Away) -> None:
    log = open_run(server.uri, server.context.parent_run_id)
    server.leave()
    before = server.asked
    for step in range(200):
        log.tags({"step": str(step)})
    assert server.asked == before + 1


def test_the_stages_own_sentence_is_what_is_raised(server: Away, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="own sentence"), stage_run(server.context, "sft", {}, {}, tmp_path / "m"):
        server.leave()
        raise DataError("own sentence")


def test_an_outbox_that_cannot_be_written_ends_nothing(
    server: Away, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home.write_text("a file where the folder is to be")
    server.leave()
    with caplog.at_level(logging.WARNING, "plumbline"):
        open_run(server.uri, server.context.parent_run_id).tags({"a": "b"})
    assert any("was lost" in record.message for record in caplog.records)


def test_a_deleted_experiment_is_one_sentence_with_two_remedies(server: Away, tmp_path: Path) -> None:
    MlflowClient(server.uri).delete_experiment(server.experiment)
    with pytest.raises(ConfigError, match=r"was deleted.*experiments restore -x 1.*tracking\.experiment="):
        prepare(server.uri, "rlhf", tmp_path / "files")


def test_an_experiment_deleted_in_mid_run_ends_nothing(server: Away, tmp_path: Path) -> None:
    MlflowClient(server.uri).delete_experiment(server.experiment)
    with stage_run(server.context, "sft", {"sft": {"epochs": 2}}, {}, tmp_path / "m") as log:
        log.metrics({"loss": 3.0}, 1)
    left = deliver(server.uri)
    assert left is not None and "refused entries of 1 runs" in left
    kept = (outbox(server.uri).folder / f"{log.run_id}.refused").read_text().splitlines()
    assert {json.loads(line)["do"] for line in kept} == {"create", "params", "metrics", "end"}


def test_a_locked_database_is_waited_for_and_then_named(server: Away, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter([False] * 3 + [True])

    def busy() -> str:
        if not next(calls):
            raise RuntimeError("(sqlite3.OperationalError) database is locked")
        return "written"

    assert Client(server.uri)._call(busy) == "written"
    monkeypatch.setattr("tasks.engine.tracking.server.LOCKED_SECONDS", 0.0)
    calls = iter([False])
    with pytest.raises(TrackingAway, match=r"locked for 0 s; run fewer at once, or use PostgreSQL"):
        Client(server.uri)._call(busy)


def test_a_missing_database_driver_names_the_extra(server: Away) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("No module named 'psycopg2'", name="psycopg2")

    with pytest.raises(TrackingAway, match=r"needs psycopg2.*-e \.\[postgres\]"):
        Client(server.uri)._call(missing)


def test_a_missing_module_is_named_whatever_database_needs_it(server: Away) -> None:
    def needs() -> None:
        raise ModuleNotFoundError("No module named 'MySQLdb'", name="MySQLdb")

    with pytest.raises(TrackingAway, match="needs the module MySQLdb, which is not installed; install it"):
        Client(server.uri)._call(needs)


def test_a_full_tracking_disk_is_one_sentence(server: Away) -> None:
    def full() -> None:
        raise RuntimeError("(sqlite3.OperationalError) database or disk is full")

    with pytest.raises(TrackingAway, match="the disk is full; free some space"):
        Client(server.uri)._call(full)


def test_a_port_that_refuses_costs_no_time(tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    box = Outbox(uri, tmp_path / "box")
    for step in range(50):
        box.post("run", {"do": "tags", "values": {"step": str(step)}})
    assert time.monotonic() - began < 2
    left = box.deliver_all()
    assert left is not None and "50 entries of 1 runs" in left and uri in left
    with pytest.raises(TrackingAway, match=r"no answer.*tracking\.mlflow_uri"):
        client(uri).get_run("run")
    assert time.monotonic() - began < 10


@contextmanager
def real_server(folder: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder / 'm.db'}", "--default-artifact-root", str(folder / "files")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([*command, *store], env=environment, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                assert time.monotonic() < end and process.poll() is None
                time.sleep(0.2)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
def test_a_real_server_killed_in_a_stage_and_started_again(tmp_path: Path) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with real_server(tmp_path, port):
        experiment = prepare(uri, "rlhf", tmp_path / "own")
        parent = start_pipeline_run(uri, experiment, "run", {}, {})
        context = StageContext(
            store=str(tmp_path), tracking_uri=uri, experiment_id=experiment, parent_run_id=parent, runtime=RUNTIME
        )
        stage = stage_run(context, "ppo", {}, {}, tmp_path / "m")
        log = stage.__enter__()
        log.metrics({"kl": 0.1}, 1)
        log.flush()
    began = time.monotonic()
    log.metrics({"kl": 0.2}, 2)
    stage.__exit__(None, None, None)
    with stage_run(context, "gate", {}, {}, tmp_path / "m2") as second:
        second.metrics({"passed": 1.0})
    assert time.monotonic() - began < 15
    assert deliver(uri) is not None
    with real_server(tmp_path, port):
        assert deliver(uri) is None
        assert points(uri, log.run_id, "kl") == [(1, 0.1), (2, 0.2)]
        [gate] = MlflowClient(uri).search_runs([experiment], "tags.`plumbline.stage` = 'gate'")
        assert gate.data.metrics == {"passed": 1.0} and gate.info.status == "FINISHED"
