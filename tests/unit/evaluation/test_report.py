import re
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.console import Console

from tasks.evaluation.compare import compare_sheets
from tasks.evaluation.comparison import PolicyComparison
from tasks.evaluation.report import render_report
from tasks.evaluation.sheet import PolicySheet
from tasks.evaluation.table import columns, markdown_table, table_rows, terminal_table
from tests.unit.evaluation.sheets import evaluation_config, trio

CONFIG = evaluation_config(best_of_n=[4], bootstrap_samples=200, samples_in_report=4)
ATTACK = '<script>alert("model")</script><img src=x onerror=alert(1)>'
HISTORY = [{"step": step, "kl": 0.1 * step, "score": 0.2 * step} for step in range(5)]


class Outline(HTMLParser):
    """Tags with attributes, and the text outside style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.words = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._inside = tag
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += "" if self._inside == "style" else data


def render(sheets: dict[str, PolicySheet], comparison: PolicyComparison | None = None, **histories: Any) -> str:
    return render_report(
        comparison or compare_sheets(sheets, CONFIG),
        sheets,
        histories,
        CONFIG,
        run_config={"seed": 3, "note": ATTACK},
        digests={"ppo_ptx": "ab" * 32},
    )


def poisoned() -> dict[str, PolicySheet]:
    """Every text that a model or a data file can choose is an attack."""

    def poison(sheet: PolicySheet) -> PolicySheet:
        samples = [
            row.model_copy(
                update={
                    "prompt": ATTACK,
                    "kind": ATTACK,
                    "responses": {d: r.model_copy(update={"text": ATTACK}) for d, r in row.responses.items()},
                }
            )
            for row in sheet.samples
        ]
        return sheet.model_copy(update={"samples": samples, "benchmarks": {ATTACK: sheet.benchmarks["sums"]}})

    return {name: poison(sheet) for name, sheet in trio().items()}


@pytest.fixture(scope="module")
def page() -> str:
    return render(trio(), ppo_ptx=HISTORY)


def test_what_a_model_writes_stays_text() -> None:
    outline = Outline(render(poisoned()))
    tags = [tag for tag, _ in outline.tags]
    assert "script" not in tags
    assert not any(name.startswith("on") for _, attributes in outline.tags for name in attributes)
    assert all(attributes.get("src", "data:").startswith("data:") for _, attributes in outline.tags)
    assert outline.words.count(ATTACK) > 8


def test_the_page_loads_nothing_from_outside(page: str) -> None:
    for tag, attributes in Outline(page).tags:
        assert tag not in ("script", "iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "action", "data"):
            assert str(attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    assert not re.search(r"@import|url\(", page)


def test_the_page_is_readable_on_a_phone_and_by_a_screen_reader(page: str) -> None:
    tags = Outline(page).tags
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    assert ("html", {"lang": "en"}) in tags


def test_the_page_holds_verdict_table_samples_config_and_digests(page: str) -> None:
    comparison = compare_sheets(trio(), CONFIG)
    words = Outline(page).words
    assert comparison.verdict in words
    for expected in ("best of 4", "number 2 a :", "ab" * 32, '"seed": 3', "win_rate/ppo_ptx/gold = 0.75"):
        assert expected in words
    assert page.count("data:image/svg+xml;base64,") == 3


def test_the_same_numbers_give_the_same_bytes(page: str) -> None:
    assert render(trio(), ppo_ptx=HISTORY) == page


def test_figures_that_have_no_data_are_left_out() -> None:
    sheets = trio()
    bare = {
        name: sheets[name].model_copy(
            update={"benchmarks": {}, "documents": None, "toxicity": None, "truthfulness": {}, "best_of_curve": []}
        )
        for name in ("sft", "ppo_ptx")
    }
    comparison = compare_sheets(bare, CONFIG)
    headings = [name for name, _ in columns(comparison)]
    assert headings == [
        "Policy",
        "Win %, gold labeler",
        "Win %, reward model",
        "Score, gold labeler",
        "Score, reward model",
        "KL, nats",
        "Length",
        "Ended %",
    ]
    assert "Alignment tax" not in render(bare, comparison)


def test_cells_by_hand() -> None:
    comparison = compare_sheets(trio(), CONFIG)
    headings = [name for name, _ in columns(comparison)]
    rows = {row.key: cells for row, (cells, _) in zip(comparison.rows, table_rows(comparison), strict=True)}
    ptx = dict(zip(headings, rows["ppo_ptx"], strict=True))
    assert ptx["Policy"] == ("PPO-ptx, T = 1", "vs SFT, T = 1")
    assert ptx["Win %, gold labeler"].text == "75.0"
    assert ptx["Win %, gold labeler"].detail.endswith("0 % ties")
    assert ptx["vs base, points"].text == "\N{MINUS SIGN}15.0"
    assert ptx["vs SFT, points"].text == "+7.5"
    assert ptx["Perplexity / base"].text == "1.16"
    assert ptx["Toxic %, sandbox_words"].text == "25.0"
    assert ptx["True + informative %"] == ("50.0", "held out 50.0 %")
    best = dict(zip(headings, rows["best_of_4"], strict=True))
    assert best["KL, nats"].text == "\N{LESS-THAN OR EQUAL TO} 0.64"
    assert best["Benchmarks %"].text == ""
    assert [new_group for _, new_group in table_rows(comparison)] == [False] * 5 + [True, False]


def test_terminal_and_markdown_show_the_same_figures() -> None:
    comparison = compare_sheets(trio(), CONFIG)
    console = Console(width=260, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table(comparison))
    drawn, markdown = console.export_text(), markdown_table(comparison)
    for expected in ("PPO-ptx, T = 1", "vs SFT, greedy", "66.7", "\N{MINUS SIGN}15.0", "+7.5"):
        assert expected in drawn
        assert expected in markdown
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(comparison.rows)
    assert len({line.count("|") for line in lines}) == 1


def test_markdown_escapes_names() -> None:
    sheets = trio()
    comparison = compare_sheets({"sft": sheets["sft"], "a|<b>": sheets["ppo_ptx"]}, CONFIG)
    assert "a\\|&lt;b>" in markdown_table(comparison)
