"""Every task runner gives the same bytes; runs end when they are told to, and killed ones are not shown as running."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.config import load
from flows.process.leftovers import is_gone, this_process
from flows.process.runners import make_runner, resources_of
from tasks.engine.declared import Stage
from tasks.engine.errors import ConfigError
from tests.integration.processes import hears_ctrl_c

COMMAND = [sys.executable, "-m", "flows.rlhf", "scale=miniature", "runtime.progress=false"]
LONG = ["runtime.max_workers=2", "pretrain.steps=100000"]
SECONDS_TO_END = 30  # a busy test machine; by hand it takes two or three


def environment(home: Path) -> dict[str, str]:
    places = {"PLUMBLINE_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
    places["PREFECT_LOCAL_STORAGE_PATH"] = str(home / "prefect" / "records")
    return {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | places


def finish(home: Path, *overrides: str) -> None:
    done = subprocess.run(
        [*COMMAND, *overrides], env=environment(home), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def digests(home: Path) -> dict[str, str]:
    manifests = [json.loads(path.read_text()) for path in home.glob("artifacts/*/*/manifest.json")]
    return {f"{item['stage']}/{item['fingerprint']}": item["digest"] for item in manifests}


@pytest.fixture(scope="module")
def by_threads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("threads")
    finish(home, "runtime.runner=threads")
    return digests(home)


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["processes", "ray", "dask"])
def test_every_task_runner_gives_equal_digests(by_threads: dict[str, str], tmp_path: Path, runner: str) -> None:
    if runner in ("ray", "dask"):
        pytest.importorskip(f"prefect_{runner}")
    finish(tmp_path, f"runtime.runner={runner}", "runtime.max_workers=2")
    assert digests(tmp_path) == by_threads


def descendants(pid: int) -> set[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found, before = {pid}, set()
    while found != before:
        before = set(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_dead(processes: set[int], seconds: float = SECONDS_TO_END) -> list[str]:
    """Command lines of the processes that are still there when patience ends."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(map(is_alive, processes)):
        time.sleep(0.1)
    return [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in processes if is_alive(pid)]


@contextmanager
def in_pretraining(home: Path, runner: str) -> "Iterator[tuple[subprocess.Popen[str], set[int]]]":
    """A run that has written its first checkpoint, with all its processes."""
    process = subprocess.Popen(
        [*COMMAND, *LONG, f"runtime.runner={runner}"],
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hears_ctrl_c,
    )
    end = time.monotonic() + 300
    while not list(home.glob("artifacts/checkpoints/pretrain/*/step-*.pt")):
        assert process.poll() is None and time.monotonic() < end, "pretraining never wrote a checkpoint"
        time.sleep(0.05)
    family = descendants(process.pid)
    try:
        yield process, family
    finally:
        for pid in filter(is_alive, family):
            os.kill(pid, signal.SIGKILL)


def states(home: Path) -> tuple[list[str], list[str], list[str]]:
    """States of flow runs and task runs in Prefect, and of pipeline runs in MLflow."""
    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        flows = [row[0] for row in database.execute("select state_name from flow_run order by created")]
        tasks = [row[0] for row in database.execute("select state_name from task_run order by created")]
    runs = MlflowClient(f"sqlite:///{home / 'mlflow.db'}").search_runs(["1"], order_by=["attributes.start_time"])
    return flows, tasks, [run.info.status for run in runs]


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["threads", "processes"])
@pytest.mark.parametrize("how", ["terminate", "ctrl-c"])
def test_a_run_that_is_told_to_stop_ends_within_seconds(tmp_path: Path, runner: str, how: str) -> None:
    with in_pretraining(tmp_path, runner) as (process, family):
        if how == "terminate":
            process.terminate()
        else:  # a terminal sends it to the whole group
            os.killpg(process.pid, signal.SIGINT)
        assert wait_until_dead(family) == []
        assert process.wait(5) == 130
        assert process.stderr is not None and "the same command goes on from what is saved" in process.stderr.read()
    flows, tasks, runs = states(tmp_path)
    assert flows == ["Crashed"]
    assert "Running" not in tasks and "Pending" not in tasks
    assert "KILLED" in runs and "RUNNING" not in runs


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["threads", "processes", "ray", "dask"])
def test_nothing_outlives_a_killed_run_and_the_next_one_shows_it_as_crashed(tmp_path: Path, runner: str) -> None:
    if runner in ("ray", "dask"):
        pytest.importorskip(f"prefect_{runner}")
    with in_pretraining(tmp_path, runner) as (process, family):
        process.kill()
        process.wait()
        # Two small agents of Ray notice only after a minute that they are alone; the workers are gone at once.
        assert wait_until_dead(family, 150 if runner == "ray" else SECONDS_TO_END) == []
    assert states(tmp_path)[0] == ["Running"]
    finish(tmp_path, "runtime.runner=threads", "runtime.max_workers=1")
    flows, tasks, runs = states(tmp_path)
    assert flows == ["Crashed", "Completed"]
    assert "Running" not in tasks
    assert "KILLED" in runs and "RUNNING" not in runs


def test_a_process_is_gone_only_when_it_is_known_to_be() -> None:
    here = this_process()
    host, pid, start = here.split("/")
    assert not is_gone(here)
    assert is_gone(f"{host}/{pid}/{int(start) - 1}")  # its number was given to another one
    assert is_gone(f"{host}/4194305/1")
    assert not is_gone(f"other-{host}/4194305/1")
    assert not is_gone("") and not is_gone("nonsense")
    assert host == socket.gethostname()


def test_ray_without_a_gpu_is_refused_instead_of_waiting_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    pytest.importorskip("prefect_ray")
    asked = Stage("PPO", "tasks.ppo.task:train_ppo", cpus=2, gpus=1, divided=True)
    runtime = load(["runtime=gpu", "runtime.runner=ray"]).runtime

    def cluster(*nodes: dict[str, float]) -> None:
        monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
        total = {kind: sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU")}
        monkeypatch.setattr(ray, "cluster_resources", lambda: total)

    cluster({"CPU": 2.0})
    with (
        pytest.raises(ConfigError, match=r"the Ray cluster has no GPU; set runtime\.device=cpu"),
        resources_of(asked, runtime),
    ):
        pass
    cluster({"CPU": 2.0, "GPU": 1.0})
    with resources_of(asked, runtime):
        from prefect_ray.context import RemoteOptionsContext

        assert RemoteOptionsContext.get().current_remote_options == {"num_cpus": 2, "num_gpus": 1}
    with resources_of(asked, runtime.model_copy(update={"device": "cpu"})):
        assert RemoteOptionsContext.get().current_remote_options["num_gpus"] == 0
    two = runtime.model_copy(update={"processes": 2})
    with (
        pytest.raises(ConfigError, match=r"runtime\.processes 2, but the Ray cluster has 1 GPU"),
        resources_of(asked, two),
    ):
        pass
    cluster({"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 1.0})
    with resources_of(asked, two):  # its ranks are placed by themselves, and it must not wait for what it occupies
        assert RemoteOptionsContext.get().current_remote_options == {"num_cpus": 0, "num_gpus": 0}
    with resources_of(asked._replace(divided=False), two):
        assert RemoteOptionsContext.get().current_remote_options["num_gpus"] == 1


def test_dask_has_one_gpu_a_worker() -> None:
    asked = Stage("PPO", "tasks.ppo.task:train_ppo", cpus=2, gpus=1, divided=True)
    runtime = load(["runtime=gpu", "runtime.runner=dask", "runtime.processes=2"]).runtime
    with (
        pytest.raises(ConfigError, match=r"runtime\.processes is 2 with runtime\.runner=dask"),
        resources_of(asked, runtime),
    ):
        pass


@pytest.mark.parametrize("runner", ["ray", "dask"])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, runner: str) -> None:
    monkeypatch.setitem(sys.modules, f"prefect_{runner}", None)
    with pytest.raises(ConfigError, match=rf"\.\[{runner}\]"):
        make_runner(load([f"runtime.runner={runner}"]).runtime)
