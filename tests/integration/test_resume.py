"""A killed run goes on where it was, and ends with the same bytes as one that was never killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

COMMAND = [sys.executable, "-m", "flows.rlhf", "scale=miniature", "runtime.progress=false"]
SLOWER = ["runtime.checkpoint_every=3", "pretrain.steps=400", "ppo.episodes=640"]


def start(root: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PLUMBLINE_HOME": str(root), "PREFECT_HOME": str(root / "prefect")}
    environment["PREFECT_LOCAL_STORAGE_PATH"] = str(root / "prefect" / "records")
    environment.pop("PREFECT_API_URL", None)
    return subprocess.Popen(
        [*COMMAND, *SLOWER, f"tracking.root={root}"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(root: Path) -> str:
    process = start(root)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def kill_once(root: Path, stage: str) -> None:
    """Start, wait until ``stage`` has written a checkpoint, then kill without mercy."""
    process = start(root)
    end = time.monotonic() + 300
    while not list(root.glob(f"artifacts/checkpoints/{stage}/*/step-*.pt")):
        assert process.poll() is None and time.monotonic() < end, f"{stage} never wrote a checkpoint"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def digests(root: Path) -> dict[str, str]:
    manifests = [json.loads(path.read_text()) for path in root.glob("artifacts/*/*/manifest.json")]
    return {f"{item['stage']}/{item['fingerprint']}": item["digest"] for item in manifests}


@pytest.mark.slow
def test_killed_in_pretraining_and_in_ppo_then_equal_to_the_bit(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for folder in (killed, whole):
        folder.mkdir()
    finish(whole)
    for stage in ("pretrain", "ppo_ptx"):
        kill_once(killed, stage)
    finish(killed)
    assert digests(killed) == digests(whole)
    client = MlflowClient(f"sqlite:///{killed / 'mlflow.db'}")
    runs = client.search_runs(["1"], "tags.`plumbline.stage` = 'ppo_ptx' and tags.`plumbline.resumed` = 'true'")
    assert len(runs) == 1
    steps = [point.step for point in client.get_metric_history(runs[0].info.run_id, "objective/kl")]
    assert steps == list(range(1, 21))
