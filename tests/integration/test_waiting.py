"""A deployment's run that waits for people, on a standing Prefect server: it ends, and goes on when the labels are there."""

import subprocess
import sys

import pytest

from tasks.records.labels import batch_folder, batches, read_batch
from tests.integration.test_automations import Standing, standing
from tests.integration.test_deployment import ask, project
from tests.integration.test_labelers import answer

__all__ = ["project", "standing"]
WAKE = "import sys; from pathlib import Path; from flows.run.waiting import wake; print(wake(Path(sys.argv[1])))"


@pytest.mark.slow
def test_a_deployments_run_ends_and_is_scheduled_again_when_the_labels_are_there(standing: Standing) -> None:
    deployment = ask(f"{standing.api}/deployments/name/rlhf/miniature")
    config = deployment["parameters"]["config"]
    config["comparisons"] |= {"labelers": ["people"], "max_prompts": 8, "max_valid_prompts": 4, "agreement_prompts": 0}
    url = f"{standing.api}/deployments/{deployment['id']}/create_flow_run"
    run = str(ask(url, {"parameters": {"config": config}})["id"])
    home = standing.project / ".plumbline"

    def wake(**changes: str) -> str:
        kept = {name: value for name, value in standing.environment.items() if changes or name != "PREFECT_API_URL"}
        done = subprocess.run(
            [sys.executable, "-c", WAKE, str(folder)],
            cwd=standing.project,
            env=kept | changes,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return done.stdout.strip()

    with standing.worker():
        standing.wait("the state of a run that waits", lambda: "AwaitingLabels" in standing.states(run))
        folder = batch_folder(home, *batches(home))
        assert [place.name for place in (folder / "waiting").iterdir()] == [run]
        answer(read_batch(folder), "ann")
        assert f"run {run} waits for these labels" in wake()  # nobody knows the server: nothing is lost
        assert wake(PREFECT_API_URL=standing.api) == "[]"
        standing.wait("the end", lambda: "Completed" in standing.states(run))
    names = standing.states(run)
    assert names.count("AwaitingLabels") == 1 and names[-1] == "Completed", names
    assert not list((folder / "waiting").iterdir())
    assert wake(PREFECT_API_URL=standing.api) == "[]"
