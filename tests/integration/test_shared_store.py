"""The whole pipeline against S3 (moto's server): a second home finds every stage of the first."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.config import load
from tests.integration.test_explain import STAGES, fill, will_run
from tests.integration.test_runners import COMMAND, digests, environment, finish
from tests.s3 import s3_server


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server() as address:
        yield address


def command(home: Path, *words: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        input="",
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.usefixtures("home")
def test_every_stage_of_a_run_is_found_in_another_home(tmp_path: Path, bucket: str) -> None:
    one, other = (
        load([f"tracking.root={tmp_path / name}", f"tracking.store={bucket}/plans"]) for name in ("one", "other")
    )
    fill(one)
    assert will_run(other) == [] and digests(tmp_path / "other").keys() <= {record_of_gate(tmp_path / "one")}
    assert will_run(load([f"tracking.root={tmp_path / 'other'}"])) == STAGES


def record_of_gate(home: Path) -> str:
    """The one artifact that a plan reads: what the gate decided."""
    (gate,) = (home / "artifacts" / "gate-ppo_ptx").iterdir()
    return f"gate-ppo_ptx/{gate.name}"


@pytest.mark.slow
def test_a_second_home_finds_every_stage_of_the_first(tmp_path: Path, bucket: str) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    shared = [f"tracking.store={bucket}/team", f"tracking.mlflow_uri=sqlite:///{tmp_path / 'mlflow.db'}"]
    finish(one, *shared)
    assert "0 of 15 stages will run" in command(other, *COMMAND[1:], *shared, "--explain")
    assert digests(other).keys() <= {record_of_gate(one)}
    finish(other, *shared)
    fetched, made = digests(other), digests(one)
    assert fetched and fetched.items() <= made.items()
    assert "15 artifacts" in command(other, "-m", "flows.store", "list", *shared)
    assert "15 artifacts, every digest agrees" in command(other, "-m", "flows.store", "verify", *shared)
    assert "0 folders" in command(other, "-m", "flows.store", "gc", *shared)
    logged = "".join(
        path.read_text(errors="ignore") for path in tmp_path.rglob("*") if path.suffix in (".json", ".yaml", ".log")
    )
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in logged


@pytest.mark.slow
def test_a_store_that_does_not_answer_ends_a_run_before_its_first_stage(tmp_path: Path, bucket: str) -> None:
    before = os.environ["AWS_ENDPOINT_URL"]
    os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    try:
        told = command(tmp_path, *COMMAND[1:], f"tracking.store={bucket}/team", status=1)
    finally:
        os.environ["AWS_ENDPOINT_URL"] = before
    assert re.search(r"tracking\.store: s3://results/team cannot be used \(EndpointConnectionError", told)
    assert "Traceback" not in told and not list(tmp_path.glob("artifacts/data_prep/*"))
