"""The runs of a sweep on MLflow's compare page, and the sweep's own report, in a real browser."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.config import load
from flows.sweep.membership import as_point, compared_metrics, compared_params, point_tags
from flows.sweep.report import build_report, write_report
from tasks.engine.tracking import RunLog, prepare, start_pipeline_run, start_sweep_run
from tests.browser.chromium import Page, chromium
from tests.browser.test_pages import served
from tests.unit.sweep.points import grid, sweep

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the runs of a sweep, written the way a sweep writes them; the points are made up."""
    folder = tmp_path_factory.mktemp("home")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    experiment = prepare(uri, "rlhf", folder / "mlflow")
    parent = start_sweep_run(uri, experiment, "sweep of ppo.beta × ppo.gamma", {"ppo.beta": "0,0.02,0.2"}, {})
    for point in grid()[:8]:
        config = load([f"{knob}={value}" for knob, value in point.values.items()])
        with as_point(parent, "sweep", point.number, point.values):
            params = compared_params(config.model_dump(mode="json"))
            run = start_pipeline_run(uri, experiment, config.tracking.run_name, params, point_tags())
            log = RunLog(uri, run, is_new=True)
            log.metrics(compared_metrics(point.metrics | {"benchmark/base/mean": 0.5}))
        log.finish("FINISHED")
    RunLog(uri, parent).finish("FINISHED")
    write_report(build_report(sweep("ppo.beta", "ppo.gamma", planned=9), grid()), folder / "report")
    return folder


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Page]:
    with chromium(tmp_path / "profile") as page:
        page.size(1500, 2400)
        yield page


def compare_address(home: Path, url: str) -> str:
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    rows = client.search_runs(["1"], "tags.`plumbline.role` = 'pipeline'")
    ids = json.dumps([row.info.run_id for row in rows])
    return f'{url}/#/compare-runs?runs={ids}&experiments=["1"]'


def plotted(page: Page, kind: str) -> None:
    """Wait until Plotly has drawn a trace of a kind."""
    script = """[...document.querySelectorAll(".js-plotly-plot")]
        .flatMap(plot => (plot._fullData || []).map(trace => trace.type))"""
    end = time.monotonic() + 120
    while kind not in (found := page.run(script) or []):
        assert time.monotonic() < end, (
            f"no plot of kind {kind} was drawn, but {found}; the page reads:\n{page.text()[:800]}"
        )
        time.sleep(1)


def test_the_points_of_a_sweep_compare_in_mlflow_without_choosing_anything(home: Path, browser: Page) -> None:
    with served(home, "mlflow", "/health") as url:
        browser.open(f"{url}/#/experiments/1/runs")
        browser.wait_for("sweep of ppo.beta × ppo.gamma", seconds=180)
        browser.open(compare_address(home, url))
        text = browser.wait_for("Comparing 8 Runs", "policy/win_rate_gold", "policy/benchmarks_vs_sft", seconds=180)
        assert "benchmark/base/mean" not in text and "comparisons." not in text
        plotted(browser, "parcoords")
        browser.press("Contour Plot")
        plotted(browser, "contour")
        chosen = browser.wait_for("X-axis", "ppo.beta", "Y-axis", "ppo.gamma")
        assert "don't have enough unique data points" not in chosen
        browser.press("Scatter Plot")
        plotted(browser, "scattergl")


def test_the_report_of_a_sweep_fits_a_desk_and_a_phone(home: Path, browser: Page) -> None:
    for width in (1200, 390):
        browser.size(width, 2400)
        browser.open((home / "report" / "sweep.html").as_uri())
        browser.wait_for(
            "6 of 8 points are on the Pareto front", "best, front", "dominated by #4", "step 3: <b>loss</b> is nan"
        )
        assert browser.run("document.documentElement.scrollWidth") <= width
        broken = browser.run(
            "[...document.images].filter(picture => !picture.complete || !picture.naturalWidth).length"
        )
        assert broken == 0
