"""A deployment's run that waits for people, on a standing Prefect server: it ends, and goes on when the labels are there."""

import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from flows.label.tokens import Labelers
from tasks.records.labels import batch_folder, batches, read_batch
from tests.integration.test_automations import Standing, standing
from tests.integration.test_deployment import ask, project
from tests.integration.test_labelers import answer
from tests.unit.label.server import free_port, start

__all__ = ["project", "standing"]
WAKE = "import sys; from pathlib import Path; from flows.run.waiting import wake; print(wake(Path(sys.argv[1])))"


def give_on_the_page(home: Path, standing: Standing, responses: int) -> None:
    """The last label, submitted on the page."""
    port, token = free_port(), Labelers(home).add("ann")
    page = start(home, port, PREFECT_API_URL=standing.api)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", follow_redirects=True, timeout=30) as http:
            form = http.get("/enter", params={"token": token})
            signed = re.search(r'name="form" value="([^"]+)"', form.text)
            assert signed, form.text
            fields = {f"{name}-{place}": "1" for name in ("rank", "quality") for place in range(responses)}
            done = http.post(form.url.path, data=fields | {"form": signed[1]})
            assert "nothing is left for you" in done.text
    finally:
        time.sleep(20)  # it asks the server after it has answered
        page.terminate()
        page.wait(20)


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
        batch = read_batch(folder)
        *most, last = batch.items.values()
        answer(batch._replace(items={item.item_id: item for item in most}), "ann")
        assert wake() == "[]"  # one is missing still
        give_on_the_page(home, standing, len(last.responses))
        standing.wait("the end", lambda: "Completed" in standing.states(run))
    names = standing.states(run)
    assert names.count("AwaitingLabels") == 1 and names[-1] == "Completed", names
    assert not list((folder / "waiting").iterdir())
    assert wake(PREFECT_API_URL=standing.api) == "[]"
