"""A team's servers as ``deployments/compose.yaml`` starts them, on this machine instead of in containers: PostgreSQL, Prefect,
MLflow, and a worker that deploys and runs the miniature. Addresses, ports and folders are replaced, nothing else.
"""

import os
import shlex
import sys
import time
import urllib.request
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from flows.process.environment import PROJECT
from tests.integration import postgres
from tests.integration.test_deployment import ask, free_port, in_background, project, wait_for_server

__all__ = ["project"]
SERVICES = yaml.safe_load((PROJECT / "deployments" / "compose.yaml").read_text())["services"]
DATABASE = "plumbline:${PLUMBLINE_DB_PASSWORD}@database"
WITH_POSTGRES = pytest.mark.skipif(
    postgres.programs() is None or find_spec("psycopg2") is None or find_spec("asyncpg") is None,
    reason="PostgreSQL or the extra `postgres` is not installed",
)


def wait_for(url: str, log: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{url} does not answer:\n{log.read_text()}")


@pytest.mark.slow
@WITH_POSTGRES
def test_the_services_of_compose_run_a_pipeline(project: Path, tmp_path: Path) -> None:
    api_port, mlflow_port = free_port(), free_port()
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PLUMBLINE_", "MLFLOW_"))
    }
    kept |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", "DO_NOT_TRACK": "1"}
    with postgres.server() as place, ExitStack() as running:
        here = {
            DATABASE: place,
            "http://prefect:4200": f"http://127.0.0.1:{api_port}",
            "mlflow:5000": f"127.0.0.1:{mlflow_port}",
            "127.0.0.1:5000": f"127.0.0.1:{mlflow_port}",
            "127.0.0.1:4200": f"127.0.0.1:{api_port}",
            "0.0.0.0": "127.0.0.1",
            "/plumbline/.plumbline": str(project / ".plumbline"),
            "/tmp/prefect.yaml": str(project / "prefect.yaml"),
        }

        def placed(text: str) -> str:
            for there, ours in here.items():
                text = text.replace(there, ours)
            return text

        def environment(service: str) -> dict[str, str]:
            found = {name: placed(value) for name, value in SERVICES[service].get("environment", {}).items()}
            return kept | {"PREFECT_HOME": str(tmp_path / service)} | {k: v for k, v in found.items() if "${" not in v}

        def start(service: str, *more: str) -> Path:
            log = tmp_path / f"{service}.log"
            command = [*shlex.split(placed(SERVICES[service]["command"])), *more]
            running.enter_context(in_background(command, log, cwd=project, env=environment(service)))
            return log

        wait_for_server(f"http://127.0.0.1:{api_port}/api", start("prefect", "--port", str(api_port)))
        wait_for(f"http://127.0.0.1:{mlflow_port}/health", start("mlflow", "--port", str(mlflow_port)))
        worker = start("worker")
        end = time.monotonic() + 600
        while "started" not in worker.read_text().lower():
            assert time.monotonic() < end, worker.read_text()
            time.sleep(1)
        with in_background(
            ["prefect", "deployment", "run", "rlhf/miniature"],
            tmp_path / "run.log",
            cwd=project,
            env=environment("worker"),
        ):
            state = ""
            while state not in ("COMPLETED", "FAILED", "CRASHED"):
                assert time.monotonic() < end, worker.read_text()
                time.sleep(2)
                state = _state(place)
        assert state == "COMPLETED", worker.read_text()
        found = ask(f"http://127.0.0.1:{mlflow_port}/api/2.0/mlflow/experiments/search?max_results=100")["experiments"]
        assert all(item["artifact_location"].startswith("mlflow-artifacts:") for item in found)
    assert list((project / ".plumbline" / "mlflow-artifacts").rglob("*.html"))  # the report went through the server
    assert not list(project.rglob("mlflow.db")) and not list(tmp_path.rglob("prefect.db"))


def _state(place: str) -> str:
    """Of the miniature's run, from Prefect's own database; empty before there is one."""
    import psycopg2

    with psycopg2.connect(f"postgresql://{place}/prefect") as connection, connection.cursor() as cursor:
        cursor.execute(
            "select state_type from flow_run join deployment on deployment.id = deployment_id where deployment.name = 'miniature'"
        )
        row = cursor.fetchone()
    return str(row[0]) if row else ""
