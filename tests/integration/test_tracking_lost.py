"""A whole run whose MLflow server is killed in the middle, and the run after it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.unit.engine.test_outbox import free_port, real_server


@pytest.mark.slow
def test_training_outlives_its_mlflow_server(tmp_path: Path) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "flows.rlhf", "scale=miniature", "runtime.progress=false"]
    command.append(f"tracking.mlflow_uri={uri}")
    unset = ("PREFECT_HOME", "PREFECT_LOCAL_STORAGE_PATH", "PREFECT_API_URL")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment["PLUMBLINE_HOME"] = str(tmp_path / "home")
    log = tmp_path / "log"
    with real_server(tmp_path, port) as server, log.open("w") as file:
        first = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        while first.poll() is None and not list((tmp_path / "home" / "artifacts").glob("sft/*/manifest.json")):
            time.sleep(0.1)
        assert first.poll() is None, log.read_text()
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        assert first.wait(400) == 0, log.read_text()
        said = log.read_text()
        assert "Traceback" not in said
        assert said.count("The run goes on; what MLflow is to know is kept in") == 1
        assert "was not told" in said and "the next run with this server delivers them" in said
    with real_server(tmp_path, port):
        second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert second.returncode == 0, second.stderr
        assert "is back, and is told" in second.stderr + second.stdout
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("rlhf")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id], max_results=200)
        assert {run.info.status for run in runs} == {"FINISHED"}
        tags = {run.info.run_id: run.data.tags for run in runs}
        of_ppo = [run_id for run_id, tag in tags.items() if tag.get("plumbline.stage") == "ppo_ptx"]
        [ppo] = [run_id for run_id in of_ppo if "plumbline.reused" not in tags[run_id]]
        assert client.get_metric_history(ppo, "objective/kl")
