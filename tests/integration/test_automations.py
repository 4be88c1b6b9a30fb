"""A standing Prefect server whose runs lose their process, or their whole machine: they are scheduled again and complete."""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar

import pytest
import yaml

from deployments.automations import MOST_CRASHES, automations
from deployments.render import TAG
from flows.process.environment import PROJECT
from tests.integration.standing import Standing, kill, project, standing
from tests.integration.test_deployment import PREFECT, ask
from tests.integration.test_runners import descendants

__all__ = ["project", "standing"]


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
