"""The report page in a real browser: nothing overflows, nothing runs, nothing is loaded from outside."""

from pathlib import Path

import pytest

from tasks.compare.compare import compare_sheets
from tasks.compare.report import ReportInputs, write_report
from tests.browser.chromium import chromium
from tests.unit.compare.judges.test_in_comparison import First
from tests.unit.compare.test_report import ATTACK, HISTORY, poisoned
from tests.unit.results.sheets import evaluation_config

pytestmark = pytest.mark.slow
CONFIG = evaluation_config(best_of_n=[4], bootstrap_samples=200, samples_in_report=4)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every text that a model or a data file can choose is an attack, and as long as an attack likes to be."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    sheets = poisoned()
    comparison = compare_sheets(sheets, CONFIG, [First()])
    inputs = ReportInputs(
        comparison, sheets, {"ppo_ptx": HISTORY}, {"note": ATTACK * 20}, {"ppo_ptx": "ab" * 32}, ATTACK * 9
    )
    write_report(path, inputs, CONFIG)
    return path


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_and_what_models_write_does_nothing(page: Path, width: int, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as tab:
        tab.size(width, 900)
        tab.open(page.as_uri())
        words = tab.wait_for("How this was made", "Safety", ATTACK)
        assert "Stage blame" in words or "Sharpening control" in words
        tab.run("document.querySelectorAll('details').forEach(item => item.open = true)")
        assert tab.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        inside = (
            "[...document.querySelectorAll('table')].every(t => t.scrollWidth <= t.parentElement.clientWidth"
            " || getComputedStyle(t.parentElement).overflowX === 'auto')"
        )
        assert tab.run(inside)
        drawn = (  # a figure that is wider than a phone scrolls inside its own frame
            "[...document.images].every(item => item.complete && item.naturalWidth > 0 && (item.clientWidth <= innerWidth"
            " || getComputedStyle(item.closest('.plot')).overflowX === 'auto'))"
        )
        assert tab.run(drawn)
        assert tab.run("document.images.length") == 4
        assert tab.run("document.scripts.length") == 0
        assert tab.run("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0
