"""A team's evening: fifty runs wait for one worker while the server is started again and the worker is killed."""

from collections import Counter
from typing import Any

import pytest

from tasks.engine.tracking import client
from tests.integration.standing import Standing, kill, project, standing
from tests.integration.test_deployment import ask
from tests.integration.test_runners import descendants

__all__ = ["project", "standing"]
RUNS = 50
SECONDS = 1500
"""Half a minute a run, on a machine that has other work too."""


def completed(standing: Standing) -> int:
    """Runs in that state, of all; the server may be away."""
    asked: dict[str, Any] = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    return int(ask(f"{standing.api}/flow_runs/count", asked))


@pytest.mark.slow
def test_fifty_queued_runs_all_end_once_though_the_server_restarts_and_the_worker_is_killed(standing: Standing) -> None:
    runs = [standing.start_miniature(seed, episodes=64) for seed in range(RUNS)]
    with standing.worker(runs_at_a_time=2) as worker:
        standing.wait("some runs", lambda: completed(standing) >= RUNS // 5, seconds=SECONDS)
        standing.server.kill()
        standing.server.start()
        standing.wait("more runs", lambda: completed(standing) >= RUNS // 2, seconds=SECONDS)
        kill(descendants(worker.pid))
    with standing.worker(runs_at_a_time=2):
        standing.wait("the end of all runs", lambda: completed(standing) == RUNS, seconds=SECONDS)
    states = {run: Counter(standing.states(run)) for run in runs}
    assert [run for run, found in states.items() if found["Completed"] != 1] == [], states
    store = standing.project / ".plumbline"
    assert len(list(store.glob("artifacts/ppo_ptx/*/manifest.json"))) == RUNS
    assert len(list(store.glob("artifacts/sft/*/manifest.json"))) == 1
    statuses = Counter(run.info.status for run in client(f"sqlite:///{store}/mlflow.db").search_runs(["1"]))
    assert statuses.keys() == {"FINISHED"}, statuses
