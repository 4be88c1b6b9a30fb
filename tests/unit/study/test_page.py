import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from flows.study.page import write_page
from flows.study.points import points_of
from flows.study.records import PointRecord, Session
from flows.study.results import Results
from tests.unit.study.synthetic import PUBLISHED, record_of, study_config

CONFIG = study_config()
POINTS = points_of(CONFIG)


def write(folder: Path, records: dict, sessions: list[Session]) -> tuple[str, str]:  # type: ignore[type-arg]
    results = Results(CONFIG, POINTS, records)
    write_page(folder, results, POINTS, list(records.values()), sessions, "python -m flows.study x=1")
    return (folder / "study.md").read_text(), (folder / "study.html").read_text()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    folder = tmp_path_factory.mktemp("page")
    records = {point: record_of(point, PUBLISHED) for point in POINTS}
    broken, never = POINTS[1], POINTS[5]
    records[broken] = PointRecord(point=broken, fingerprint="x", error="Oops: <script>alert(1)</script>", seconds=3.0)
    del records[never]
    return folder, *write(folder, records, [Session(seconds=600.0, fingerprints=["x"], workers=2)] * 2)


def test_both_pages_hold_every_finding_its_verdict_and_its_claims(pages: tuple[Path, str, str]) -> None:
    _, markdown, html = pages
    for title in ("Alignment tax over gamma", "Over-optimisation by PPO", "How long to fine-tune"):
        assert title in markdown
        assert title in html
    for words in ("as published", "expected above -0.15", "**reproduced**", "**not measured**"):
        assert words in markdown
    assert 'class="badge reproduced"' in html
    assert 'class="badge not-measured"' in html


def test_missing_and_failed_points_are_named(pages: tuple[Path, str, str]) -> None:
    _, markdown, html = pages
    for page in (markdown, html):
        assert f"{POINTS[5].name}: not run yet" in page
        assert f"{POINTS[1].name}: failed (Oops" in page
    assert "<script>" not in html


def test_the_cost_is_what_was_measured(pages: tuple[Path, str, str]) -> None:
    _, markdown, _ = pages
    done = len(POINTS) - 2
    busy = (done * 60 + 3) / 60
    assert f"{done} of {len(POINTS)} points measured with seeds 1, 2, 3, in 20.0 minutes of wall time" in markdown
    assert f"2 calls; {busy:.1f} minutes inside the points" in markdown
    assert "`python -m flows.study x=1`" in markdown


def test_markdown_tables_are_square_and_its_figures_exist(pages: tuple[Path, str, str]) -> None:
    folder, markdown, _ = pages
    tables = re.findall(r"(?:^\|.*\|$\n)+", markdown, flags=re.MULTILINE)
    assert len(tables) == 10
    for table in tables:
        assert len({line.count(" | ") for line in table.splitlines() if "---" not in line}) == 1
    pictures = re.findall(r"!\[.*\]\((.*)\)", markdown)
    assert len(pictures) == 8
    assert all((folder / name).read_text().lstrip().startswith("<?xml") for name in pictures)


class Outside(HTMLParser):
    """Collects what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        for name in ("src", "href"):
            if tag != "a" and values.get(name):
                self.fetched.append(str(values[name]))


def test_the_html_page_fetches_nothing(pages: tuple[Path, str, str]) -> None:
    found = Outside()
    found.feed(pages[2])
    assert len(found.fetched) == 9
    assert all(address.startswith("data:") for address in found.fetched)


def test_equal_numbers_give_equal_bytes(tmp_path: Path) -> None:
    small = study_config("scale=miniature")
    points = points_of(small)
    records = {point: record_of(point, PUBLISHED) for point in points}
    for name, found in (("a", records), ("b", dict(reversed(records.items())))):
        write_page(tmp_path / name, Results(small, points, found), points, list(found.values()), [], "x")
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 8
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_a_page_without_any_point(tmp_path: Path) -> None:
    markdown, _ = write(tmp_path, {}, [])
    assert f"0 of {len(POINTS)} points measured" in markdown
    assert "**reproduced**" not in markdown
    assert not (tmp_path / "figures").exists()
