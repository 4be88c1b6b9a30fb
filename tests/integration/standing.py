"""A standing Prefect server with our deployments and automations, which tests restart, and workers, which they kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from deployments.automations import automations
from tests.integration.test_deployment import PREFECT, ask, free_port, project, wait_for_server
from tests.integration.test_runners import descendants

__all__ = ["project", "standing"]
PATIENCE = 500


class Server:
    """A Prefect server that keeps its database and its port when it is started again."""

    def __init__(self, project: Path, home: Path, environment: dict[str, str]) -> None:
        self._port, self._log = free_port(), home / "server.log"
        self._where = {"cwd": project, "env": environment}
        self.api = f"http://127.0.0.1:{self._port}/api"

    def start(self) -> None:
        words = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(self._port)]
        with self._log.open("a") as stream:
            self._process = subprocess.Popen(words, **self._where, stdout=stream, stderr=stream)  # type: ignore[call-overload]
        wait_for_server(self.api, self._log)

    def kill(self) -> None:
        kill(descendants(self._process.pid))
        self._process.wait()


class Standing(NamedTuple):
    """A server, and how to reach it."""

    server: Server
    environment: dict[str, str]
    project: Path
    log: Path

    @property
    def api(self) -> str:
        return self.server.api

    def command(self, *words: str) -> str:
        where = {"cwd": self.project, "env": self.environment}
        done = subprocess.run([*words], **where, capture_output=True, text=True, timeout=120, check=False)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    @contextmanager
    def worker(self, runs_at_a_time: int = 1) -> "Iterator[subprocess.Popen[bytes]]":
        words = [*PREFECT, "worker", "start", "--pool", "local", "--limit", str(runs_at_a_time)]
        with self.log.open("a") as stream:
            process = subprocess.Popen(
                words, cwd=self.project, env=self.environment, stdout=stream, stderr=stream, start_new_session=True
            )
        try:
            yield process
        finally:
            kill(descendants(process.pid))
            process.wait()

    def start_miniature(self, seed: int, episodes: int = 2048) -> str:
        deployment = ask(f"{self.api}/deployments/name/rlhf/miniature")
        config = deployment["parameters"]["config"]
        # By default long enough to be found at work; with a new seed, not in the store.
        config["ppo"] |= {"episodes": episodes, "seed": seed}
        made = ask(f"{self.api}/deployments/{deployment['id']}/create_flow_run", {"parameters": {"config": config}})
        return str(made["id"])

    def states(self, run: str) -> list[str]:
        found = subprocess.run(
            ["curl", "-s", "--fail", f"{self.api}/flow_run_states/?flow_run_id={run}"],
            capture_output=True,
            text=True,
            check=True,
        )
        return [state["name"] for state in json.loads(found.stdout)]

    def wait(self, what: str, there: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        end = time.monotonic() + seconds
        while not (found := there()):
            assert time.monotonic() < end, f"{what} never came\n{self.log.read_text()}"
            time.sleep(0.2)
        return found

    def in_ppo(self) -> bool:
        return any(self.project.glob(".plumbline/artifacts/checkpoints/ppo_ptx/*/step-*.pt"))


def kill(processes: set[int]) -> None:
    for pid in processes:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.fixture
def standing(project: Path, tmp_path: Path) -> Iterator[Standing]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PLUMBLINE_"))}
    environment = kept | {
        "PREFECT_HOME": str(tmp_path),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    }
    server = Server(project, tmp_path, environment)
    api = server.api
    try:
        server.start()
        found = Standing(server, environment | {"PREFECT_API_URL": api}, project, tmp_path / "worker.log")
        found.command(*PREFECT, "work-pool", "create", "local", "--type", "process")
        found.command(*PREFECT, "--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml", "--all")
        for _ in range(2):  # a second time changes nothing
            found.command(
                sys.executable, "-m", "deployments.automations", "--silent-seconds", "95", "--crashed-seconds", "30"
            )
        names = [item["name"] for item in ask(f"{api}/automations/filter", {})]
        assert sorted(names) == sorted(
            [*(automation.name for automation in automations(95)), "plumbline: new comparisons start a run"]
        )
        yield found
    finally:
        server.kill()
