"""The deployment file, and a standing Prefect server with a worker that runs it, as in the README."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.render import rendered
from flows.config import parse
from flows.process.environment import PROJECT
from tasks.engine.errors import ConfigError

FILE = PROJECT / "deployments" / "prefect.yaml"
PREFECT = [sys.executable, "-m", "prefect"]


def test_the_deployment_file_is_what_render_prints() -> None:
    assert FILE.read_text() == rendered([]), "run `python -m deployments.render > deployments/prefect.yaml`"


def test_the_deployment_file_holds_valid_configurations_and_no_path_of_this_machine() -> None:
    text = FILE.read_text()
    nightly, miniature = yaml.safe_load(text)["deployments"]
    assert parse(nightly["parameters"]["config"]).ppo.episodes > parse(miniature["parameters"]["config"]).ppo.episodes
    assert nightly["schedules"][0]["cron"] == "0 2 * * *" and miniature["schedules"] == []
    assert str(PROJECT) not in text and str(Path.home()) not in text


def test_render_takes_overrides_and_refuses_mistakes() -> None:
    assert yaml.safe_load(rendered(["ppo.beta=0.3"]))["deployments"][0]["parameters"]["config"]["ppo"]["beta"] == 0.3
    with pytest.raises(ConfigError, match=r"ppo\.beta"):
        rendered(["ppo.beta=-1"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, body: Any = None) -> Any:
    """The server's answer; as Prefect's own client does, again while its database is busy."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    end = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > end:
                raise
        except TimeoutError:
            if time.monotonic() > end:
                raise
        time.sleep(0.5)


@contextmanager
def in_background(command: list[str], log: Path, **where: Any) -> Iterator[None]:
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, **where)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for_server(api: str, log: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end:
        try:
            ask(f"{api}/health")
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"the Prefect server did not start:\n{log.read_text()}")


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, because a deployment's results lie below it."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("conf", "flows", "tasks", "deployments"):
        shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", copy)  # what makes a folder a clone
    return copy


@pytest.mark.slow
def test_server_pool_deployment_worker_run_and_schedule(project: Path, tmp_path: Path) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PLUMBLINE_"))}
    environment = kept | {
        "PREFECT_HOME": str(tmp_path),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    server = {"cwd": project, "env": environment}
    client = {"cwd": project, "env": environment | {"PREFECT_API_URL": api}}

    def command(*arguments: str, seconds: float = 120) -> str:
        done = subprocess.run(
            [*PREFECT, *arguments], **client, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "worker.log").read_text()
        return done.stdout

    start = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    worker = [*PREFECT, "worker", "start", "--pool", "local"]
    (tmp_path / "worker.log").touch()
    with in_background(start, tmp_path / "server.log", **server):
        wait_for_server(api, tmp_path / "server.log")
        command("work-pool", "create", "local", "--type", "process")
        command("--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml", "--all")

        form = ask(f"{api}/deployments/name/rlhf/nightly")["parameter_openapi_schema"]["definitions"]
        assert "points per nat" in form["PPOConfig"]["properties"]["beta"]["description"]
        undescribed = [
            f"{name}.{key}"
            for name, part in form.items()
            for key, field in part.get("properties", {}).items()
            if "description" not in field
        ]
        assert undescribed == []

        with in_background(worker, tmp_path / "worker.log", **client):
            command("deployment", "run", "rlhf/miniature", "--watch", seconds=400)
            command("deployment", "run", "rlhf/miniature", "--watch", seconds=400)
        runs = ask(f"{api}/flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC"})
        assert [run["state_name"] for run in runs if run["name"] == "miniature"] == ["Completed", "Completed"]
        assert [run["state_name"] for run in runs if run["name"] != "miniature"], "cron created no run"
        assert {run["state_type"] for run in runs if run["name"] != "miniature"} == {"SCHEDULED"}
        stages = [item["data"] for item in ask(f"{api}/artifacts/filter", {}) if item["key"] == "stages"]
        assert sorted(text.count("| ran |") for text in stages) == [0, 15]
    assert list(project.glob(".plumbline/artifacts/ppo_ptx/*/policy/model.safetensors"))
    assert (project / ".plumbline" / "mlflow.db").is_file()


@pytest.mark.slow
def test_serving_needs_no_pool_and_no_worker(project: Path, tmp_path: Path) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PLUMBLINE_"))}
    place: dict[str, Any] = {"cwd": project, "env": kept | {"PREFECT_HOME": str(tmp_path), "DO_NOT_TRACK": "1"}}
    client: dict[str, Any] = {"cwd": project, "env": place["env"] | {"PREFECT_API_URL": api}}
    serve = [sys.executable, "-m", "deployments.serve", "scale=miniature", "seed=3"]
    run = [*PREFECT, "deployment", "run", "rlhf/served", "--watch"]
    server = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with in_background(server, tmp_path / "server.log", **place):
        wait_for_server(api, tmp_path / "server.log")
        with in_background(serve, tmp_path / "serve.log", **client):
            end = time.monotonic() + 120
            while not ask(f"{api}/deployments/filter", {}) and time.monotonic() < end:
                time.sleep(0.5)
            done = subprocess.run(run, **client, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "serve.log").read_text()
        (found,) = ask(f"{api}/flow_runs/filter", {})
        assert (found["state_name"], found["name"], found["parameters"]["config"]["seed"]) == ("Completed", "served", 3)
    assert list(project.glob(".plumbline/artifacts/ppo_ptx/*/policy/model.safetensors"))
