"""Sweeps as a user starts them: real processes, real databases, at the miniature scale."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from tasks.engine.tracking import RunLog, prepare, start_pipeline_run
from tests.integration import postgres
from tests.integration.processes import hears_ctrl_c

pytestmark = pytest.mark.slow
TRUNK = {"data_prep", "pretrain", "sft", "ppo_init", "comparisons", "reward_model", "reward_model-independent"} | {
    "evaluation-base",
    "evaluation-sft",
    "evaluation-ppo_init",
}
BRANCH = {"ppo_ptx", "evaluation-ppo_ptx", "evaluation", "gate-ppo_ptx", "release-ppo_ptx"}
JOBLIB = pytest.mark.skipif(find_spec("joblib") is None, reason="the extra `sweep` is not installed")
OPTUNA = pytest.mark.skipif(find_spec("optuna") is None, reason="the extra `sweep` is not installed")
POSTGRES = pytest.mark.skipif(
    postgres.programs() is None or find_spec("psycopg2") is None or find_spec("asyncpg") is None,
    reason="PostgreSQL or the extra `postgres` is not installed",
)


def start(home: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    places = {"PLUMBLINE_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
    places["PREFECT_LOCAL_STORAGE_PATH"] = str(home / "prefect" / "records")
    inherited = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return subprocess.Popen(
        [sys.executable, "-m", "flows.rlhf", "-m", "scale=miniature", *arguments],
        env=inherited | places | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hears_ctrl_c,
    )


def run(home: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    process = start(home, *arguments, **environment)
    output, errors = process.communicate(timeout=1200)
    return process.returncode, output, errors


def report(home: Path) -> Path:
    """The report of the latest sweep."""
    return max(home.glob("hydra/*/*/report"), key=lambda path: path.stat().st_mtime)


def table(home: Path) -> list[dict[str, str]]:
    with (report(home) / "pareto.csv").open() as stream:
        return list(csv.DictReader(stream))


def runs(uri: str, condition: str) -> list[Run]:
    return list(MlflowClient(uri).search_runs(["1"], condition, max_results=1000))


def check_family(uri: str, points: int) -> Run:
    """One finished sweep whose children are the points, each with its stage runs; returns the sweep's run."""
    (parent,) = runs(uri, "tags.`plumbline.role` = 'sweep'")
    children = runs(uri, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {child.data.tags["plumbline.point"] for child in children} == {str(number) for number in range(points)}
    assert all(child.data.tags["plumbline.role"] == "pipeline" for child in children)
    for child in children:
        stages = runs(uri, f"tags.`mlflow.parentRunId` = '{child.info.run_id}'")
        assert {stage.data.tags["plumbline.stage"] for stage in stages} == TRUNK | BRANCH
        assert {"policy/win_rate_gold", "policy/kl", "policy/benchmarks_vs_sft"} <= set(child.data.metrics)
    return parent


def work(uri: str) -> Counter[str]:
    """How often each stage was run rather than found."""
    return Counter(
        item.data.tags["plumbline.stage"]
        for item in runs(uri, "tags.`plumbline.role` = 'stage'")
        if "plumbline.began" in item.data.tags
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def side_by_side(home: Path) -> str:
    """Two points at a time in an empty store; returns the tracking URI."""
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"] if find_spec("joblib") else []
    status, output, errors = run(home, *launcher, "ppo.beta=0.05,0.5")
    assert status == 0, errors
    assert "2 of 2 points done" in output and "orchestration" in output
    assert "database is locked" not in output + errors
    return f"sqlite:///{home / 'mlflow.db'}"


@JOBLIB
def test_two_points_side_by_side_train_the_trunk_once(side_by_side: str, home: Path) -> None:
    parent = check_family(side_by_side, 2)
    assert parent.info.status == "FINISHED"
    assert work(side_by_side) == Counter(dict.fromkeys(TRUNK, 1) | dict.fromkeys(BRANCH, 2))
    stored = Counter(path.parts[-3] for path in home.glob("artifacts/*/*/manifest.json"))
    assert stored == work(side_by_side)
    drivers = {
        child.data.tags["plumbline.process"] for child in runs(side_by_side, "tags.`plumbline.role` = 'pipeline'")
    }
    assert len(drivers) == 2  # two processes did it


def test_the_report_lies_in_the_sweep_run_and_on_the_prefect_page(side_by_side: str, home: Path) -> None:
    parent = runs(side_by_side, "tags.`plumbline.role` = 'sweep'")[-1]
    files = {item.path for item in MlflowClient(side_by_side).list_artifacts(parent.info.run_id)}
    assert {"pareto.csv", "sweep.html", "tradeoff.png", "line_ppo_beta.png"} <= files
    assert parent.data.metrics["sweep/finished"] == 2
    assert parent.data.params == {"ppo.beta": "0.05,0.5"}
    import sqlite3

    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        (text,) = database.execute("select data from artifact where key = 'sweep'").fetchone()
    assert "ppo.beta" in text and "Pareto front" in text


def test_a_failing_point_is_reported_and_the_same_command_runs_only_what_is_missing(
    side_by_side: str, home: Path
) -> None:
    command = ["ppo.beta=0.05", "ppo.policy_adam.learning_rate=1e30,1e-3,2e-3"]
    before = work(side_by_side)
    status, output, errors = run(home, *command)
    assert status == 1
    last = errors.strip().splitlines()[-1]
    assert (
        last.startswith("error: 1 of 3 points failed (#0 ppo.policy_adam.learning_rate=1e+30: step 1: ")
        and "nan" in last
    )
    assert "Traceback" not in output + errors
    rows = table(home)
    assert [row["state"] for row in rows] == ["failed", "finished", "finished"]
    assert "is nan" in rows[0]["error"]
    done = work(side_by_side) - before
    assert done == Counter(dict.fromkeys(BRANCH, 2))
    status, _, errors = run(home, *command)
    assert status == 1 and errors.strip().splitlines()[-1] == last
    assert [row["stages_ran"] for row in table(home)] == ["", "0", "0"]
    assert work(side_by_side) - before == done
    statuses = Counter(item.info.status for item in runs(side_by_side, "tags.`plumbline.role` = 'sweep'"))
    assert statuses == {"FINISHED": 1, "FAILED": 2}


@OPTUNA
def test_a_search_gets_what_the_points_return_and_survives_one_that_fails(side_by_side: str, home: Path) -> None:
    rates = "ppo.policy_adam.learning_rate=choice(1e-3,1e30)"
    seeded = ["hydra.sweeper.n_trials=4", "hydra.sweeper.sampler.seed=2"]  # proposes each rate twice
    status, output, errors = run(home, "search=beta_gamma", *seeded, rates)
    rows = table(home)
    states = Counter(row["state"] for row in rows)
    assert states["failed"] and states["finished"] and len(rows) == 4, (states, output, errors)
    assert status == 1 and f"error: {states['failed']} of 4 points failed" in errors
    found = yaml.safe_load((report(home).parent / "optimization_results.yaml").read_text())["solutions"]
    assert found
    for solution in found:
        row = next(item for item in rows if item["ppo.beta"] == str(solution["params"]["ppo.beta"]))
        assert [float(row["win_rate"]), float(row["regression"])] == solution["values"]


def test_ctrl_c_ends_the_points_and_the_sweep_in_order(side_by_side: str, home: Path) -> None:
    process = start(home, "ppo.beta=0.7,0.8", "ppo.episodes=6400", "runtime.checkpoint_every=1")
    end = time.monotonic() + 600
    while not list(home.glob("artifacts/checkpoints/ppo_ptx/*/step-*.pt")):
        assert process.poll() is None and time.monotonic() < end, "the first point never trained"
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "the same command goes on from what is saved" in errors
    assert [row["state"] for row in table(home)] == ["interrupted", "waiting"], output
    newest = max(runs(side_by_side, "tags.`plumbline.role` = 'sweep'"), key=lambda item: item.info.start_time)
    assert newest.info.status == "KILLED"
    assert not runs(side_by_side, "attributes.status = 'RUNNING'")


@pytest.fixture
def database() -> Iterator[str]:
    with postgres.server() as place:
        yield place


@JOBLIB
@POSTGRES
def test_mlflow_and_prefect_on_postgresql(database: str, tmp_path: Path) -> None:
    uri, home = f"postgresql://{database}/mlflow", tmp_path / "home"
    home.mkdir()
    status, _, errors = run(
        home,
        *("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "ppo.beta=0.05,0.5", f"tracking.mlflow_uri={uri}"),
        PREFECT_API_DATABASE_CONNECTION_URL=f"postgresql+asyncpg://{database}/prefect",
    )
    assert status == 0, errors
    assert check_family(uri, 2).info.status == "FINISHED"
    assert work(uri) == Counter(dict.fromkeys(TRUNK, 1) | dict.fromkeys(BRANCH, 2))
    assert not (home / "mlflow.db").exists() and not (home / "prefect" / "prefect.db").exists()
    import psycopg2

    with psycopg2.connect(f"postgresql://{database}/prefect") as connection, connection.cursor() as cursor:
        cursor.execute("select state_type, count(*) from task_run group by state_type")
        assert dict(cursor.fetchall()) == {"COMPLETED": 2 * len(TRUNK | BRANCH)}
        cursor.execute("select count(*) from artifact where key = 'sweep'")
        assert cursor.fetchone() == (1,)


def _write_runs(uri: str, experiment: str, number: int, rounds: int) -> float:
    """What the points of a sweep do to the database, without pause; returns the slowest round in seconds."""
    slowest = 0.0
    for turn in range(rounds):
        began = time.monotonic()
        run_id = start_pipeline_run(uri, experiment, f"{number}-{turn}", {"sft": {"epochs": 1}}, {"point": str(number)})
        log = RunLog(uri, run_id, is_new=True)
        for step in range(20):
            log.metrics({f"m/{index}": float(step) for index in range(20)}, step)
            log.flush()
        log.tags({"done": "yes"})
        log.finish("FINISHED")
        slowest = max(slowest, time.monotonic() - began)
    return slowest


def test_many_writers_share_one_sqlite_file(tmp_path: Path) -> None:
    """A locked database would raise in a writer, and the pool would pass it on."""
    processes, uri = 6, f"sqlite:///{tmp_path / 'mlflow.db'}"
    experiment = prepare(uri, "stress", tmp_path / "mlflow")
    with get_context("spawn").Pool(processes) as pool:
        slowest = pool.starmap(_write_runs, [(uri, experiment, number, 8) for number in range(processes)])
    print(f"slowest of {8 * processes} runs with 20 batches each: {max(slowest):.2f} s")
    rows = MlflowClient(uri).search_runs([experiment], max_results=1000)
    assert len(rows) == 8 * processes
    assert all(row.info.status == "FINISHED" and row.data.metrics["m/19"] == 19.0 for row in rows)


def test_nothing_is_left_in_records(side_by_side: str, home: Path) -> None:
    """Records of finished points are whole: no draft stays behind, every one is valid JSON."""
    for path in home.glob("hydra/*/*/points/*"):
        assert path.suffix == ".json" and json.loads(path.read_text())["state"] in ("finished", "failed", "interrupted")
