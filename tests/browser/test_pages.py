"""The Prefect and the MLflow page of a finished run, in a real browser."""

import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.browser.chromium import Page, chromium

pytestmark = pytest.mark.slow
STAGES = ("data_prep", "pretrain", "sft", "ppo_init", "comparisons", "reward_model", "ppo_ptx", "evaluation")


def command(home: Path, module: str, *arguments: str) -> "subprocess.Popen[str]":
    places = {"PLUMBLINE_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
    places["PREFECT_LOCAL_STORAGE_PATH"] = str(home / "prefect" / "records")
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | places
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env=environment,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if module == "flows.rlhf" else subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of two runs that differ in beta."""
    folder = tmp_path_factory.mktemp("home")
    for beta in ("0.05", "0.3"):
        process = command(
            folder, "flows.rlhf", "scale=miniature", "runtime.progress=false", f"ppo.beta={beta}", "ppo.gamma=1"
        )
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
    return folder


@contextmanager
def served(home: Path, page: str, health: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = command(home, "flows.pages", page, "--port", str(port))
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + 180
    try:
        while True:
            try:
                with urllib.request.urlopen(url + health, timeout=10):
                    break
            except OSError:
                assert process.poll() is None and time.monotonic() < end, f"the {page} page did not start"
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Page]:
    with chromium(tmp_path / "profile") as page:
        page.size(1200, 2400)  # lists draw only the rows that are in view
        yield page


def test_prefect_shows_the_run_its_stages_and_the_results(home: Path, browser: Page) -> None:
    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        (run,) = database.execute("select id from flow_run order by created limit 1").fetchone()
    with served(home, "prefect", "/api/health") as url:
        browser.open(f"{url}/runs")
        browser.wait_for("beta=0.05 gamma=1 seed=1", "beta=0.3 gamma=1 seed=1")
        browser.open(f"{url}/runs/flow-run/{run}")
        browser.wait_for("beta=0.05 gamma=1 seed=1", "Completed", "15 Task runs")
        browser.click("Task Runs")
        browser.wait_for(*STAGES)
        browser.open(f"{url}/artifacts")
        browser.wait_for("results", "report", "stages", "mlflow", "page")


def link_of(home: Path, key: str, run_id: str) -> str:
    """A link artifact of a run; its data is Markdown."""
    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        links = [data for (data,) in database.execute("select data from artifact where key = ?", (key,))]
    (link,) = [part for data in links if run_id in data for part in re.findall(r"\((http[^)]*)\)", data)]
    return link


def test_mlflow_shows_runs_curves_and_a_comparison(home: Path, browser: Page) -> None:
    with sqlite3.connect(home / "mlflow.db") as database:
        rows = database.execute("select run_uuid, name from runs order by start_time").fetchall()
    first, second = (run for run, name in rows if name.startswith("beta="))
    ppo = next(run for run, name in rows if name == "ppo_ptx")
    with served(home, "mlflow", "/health") as url:
        browser.open(f"{url}/#/experiments/1/runs")
        browser.wait_for("beta=0.05 gamma=1 seed=1", "beta=0.3 gamma=1 seed=1")
        for key, text in (("mlflow", "policy/win_rate_gold"), ("page", "report.html")):  # links on the Prefect page
            browser.open(f"{url}/#{link_of(home, key, first).partition('#')[2]}")
            browser.wait_for(text)
        browser.open(f"{url}/#/experiments/1/runs/{ppo}/model-metrics")
        browser.wait_for("objective", "value", "ratio")
        browser.open(f'{url}/#/compare-runs?runs=["{first}","{second}"]&experiments=["1"]')
        browser.wait_for("Comparing 2 Runs", "ppo.beta", "policy/win_rate_gold")


def test_a_port_in_use_is_named(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for page in ("prefect", "mlflow"):
            done = subprocess.run(
                [sys.executable, "-m", "flows.pages", page, "--port", str(port)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 1
            assert done.stderr == f"error: port {port} on 127.0.0.1 is in use; choose another with --port\n"
