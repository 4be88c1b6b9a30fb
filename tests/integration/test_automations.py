"""A standing Prefect server whose runs lose their process, or their whole machine: they are scheduled again and complete."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, NamedTuple

import pytest
import yaml

from deployments.automations import MOST_CRASHES, automations
from deployments.render import TAG
from flows.process.environment import PROJECT
from tests.integration.test_deployment import PREFECT, ask, free_port, project, wait_for_server
from tests.integration.test_runners import descendants

__all__ = ["project"]
PATIENCE = 500


def test_automations_are_about_our_runs_alone_and_give_up_in_the_end() -> None:
    deployments = yaml.safe_load((PROJECT / "deployments" / "prefect.yaml").read_text())["deployments"]
    crashed, silent, pending = automations(90, 30)
    for automation in (crashed, silent, pending):
        related = automation.trigger.match_related.model_dump()
        assert related == {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
        assert all(TAG in deployment["tags"] for deployment in deployments)
    counts = crashed.trigger.match.model_dump()["prefect.run-count"]
    assert counts == [str(count) for count in range(1, MOST_CRASHES)]
    assert crashed.trigger.within.total_seconds() == 30
    assert silent.trigger.within.total_seconds() == pending.trigger.within.total_seconds() == 90
    ended = {f"prefect.flow-run.{state}" for state in ("GateFailed", "AwaitingLabels", "NothingNew")}
    assert ended <= silent.trigger.expect  # such a run has ended
    assert [automation.actions[0].state.value for automation in (crashed, silent, pending)] == [
        "SCHEDULED",
        "CRASHED",
        "SCHEDULED",
    ]


def test_what_dies_is_started_again() -> None:
    services = yaml.safe_load((PROJECT / "deployments" / "compose.yaml").read_text())["services"]
    assert {service["restart"] for service in services.values()} == {"unless-stopped"}
    assert services["prefect"]["environment"]["PREFECT_SERVER_DATABASE_TIMEOUT"] == "60"
    beat = int(services["worker"]["environment"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    patience = services["worker"]["command"].partition("deployments.automations --silent-seconds ")[2].split()[0]
    assert float(patience) >= 3 * beat


class Standing(NamedTuple):
    """A server, and how to reach it."""

    api: str
    environment: dict[str, str]
    project: Path
    log: Path

    def command(self, *words: str) -> str:
        where = {"cwd": self.project, "env": self.environment}
        done = subprocess.run([*words], **where, capture_output=True, text=True, timeout=120, check=False)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    @contextmanager
    def worker(self) -> "Iterator[subprocess.Popen[bytes]]":
        words = [*PREFECT, "worker", "start", "--pool", "local"]
        with self.log.open("a") as stream:
            process = subprocess.Popen(
                words, cwd=self.project, env=self.environment, stdout=stream, stderr=stream, start_new_session=True
            )
        try:
            yield process
        finally:
            kill(descendants(process.pid))
            process.wait()

    def start_miniature(self, seed: int) -> str:
        deployment = ask(f"{self.api}/deployments/name/rlhf/miniature")
        config = deployment["parameters"]["config"]
        config["ppo"] |= {
            "episodes": 2048,
            "seed": seed,
        }  # long enough to be found at work; with a new seed, not in the store
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

    def wait(self, what: str, there: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
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
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PLUMBLINE_"))}
    environment = kept | {
        "PREFECT_HOME": str(tmp_path),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    }
    api = f"http://127.0.0.1:{port}/api"
    words = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "server.log").open("w") as stream:
        server = subprocess.Popen(words, cwd=project, env=environment, stdout=stream, stderr=stream)
    try:
        wait_for_server(api, tmp_path / "server.log")
        found = Standing(api, environment | {"PREFECT_API_URL": api}, project, tmp_path / "worker.log")
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
        kill(descendants(server.pid))
        server.wait()


@pytest.mark.slow
def test_a_killed_run_is_scheduled_again_and_completes_and_a_cancelled_one_stays_cancelled(standing: Standing) -> None:
    with standing.worker() as worker:
        run = standing.start_miniature(seed=1)
        standing.wait("PPO's first checkpoint", standing.in_ppo)
        kill(descendants(worker.pid) - {worker.pid})
        standing.wait("the end", lambda: "Completed" in standing.states(run))
        assert standing.states(run).count("Crashed") == 1
        # Cancelled by a person, it ends in the same way and is left alone.
        cancelled = standing.start_miniature(seed=2)
        standing.wait("PPO's first checkpoint", standing.in_ppo)
        ask(f"{standing.api}/flow_runs/{cancelled}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
        standing.wait("its end", lambda: "Cancelled" in standing.states(cancelled))
        time.sleep(40)  # longer than a crashed run waits to be scheduled again
        assert standing.states(cancelled)[-1] == "Cancelled"


class Posts(BaseHTTPRequestHandler):
    """Keeps the bodies that it is sent."""

    bodies: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.slow
def test_a_failed_gate_is_posted_and_new_comparisons_start_a_run(standing: Standing) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Posts) as listener:
        Thread(target=listener.serve_forever, daemon=True).start()
        standing.environment["PLUMBLINE_WEBHOOK_URL"] = f"http://127.0.0.1:{listener.server_port}/secret-path"
        told = standing.command(sys.executable, "-m", "deployments.automations")
        assert "plumbline: failed gates are reported: installed" in told and "secret-path" not in told
        run = standing.start_miniature(seed=1)  # no worker: it waits
        ended = {"type": "FAILED", "name": "GateFailed", "message": 'gate: "policy" failed 1 of 2 checks'}
        ask(f"{standing.api}/flow_runs/{run}/set_state", {"state": ended, "force": True})
        standing.wait("the post", lambda: Posts.bodies)
        name = ask(f"{standing.api}/flow_runs/filter", {})[0]["name"]
        assert Posts.bodies == [{"text": f'{name}: gate: "policy" failed 1 of 2 checks'}]
        words = ("--event", "plumbline.comparisons.new", "--resource-id", "plumbline.comparisons")
        standing.command(*PREFECT, "event", "emit", *words)
        nightly = ask(f"{standing.api}/deployments/name/rlhf/nightly")["id"]
        asked = {
            "deployments": {"id": {"any_": [nightly]}},
            "flow_runs": {"state": {"name": {"any_": ["Pending", "Scheduled"]}}},
        }
        standing.wait(
            "a run of the nightly deployment",
            lambda: [found for found in ask(f"{standing.api}/flow_runs/filter", asked) if not found["auto_scheduled"]],
        )
        listener.shutdown()


@pytest.mark.slow
def test_a_run_whose_machine_is_lost_goes_on_on_the_next_worker(standing: Standing) -> None:
    with standing.worker() as worker:
        run = standing.start_miniature(seed=1)
        standing.wait("PPO's first checkpoint", standing.in_ppo)
        kill(descendants(worker.pid))
    with standing.worker():
        standing.wait("the end", lambda: "Completed" in standing.states(run))
    names = standing.states(run)
    assert names.count("Crashed") == 1 and names[-1] == "Completed", names
