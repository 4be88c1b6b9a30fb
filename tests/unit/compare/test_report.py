import io
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.console import Console

from tasks.compare.compare import compare_sheets
from tasks.compare.report import ReportInputs, render_report
from tasks.results.comparison import PolicyComparison
from tasks.results.sheet import PolicySheet, SafetyScores
from tasks.results.table import (
    BEHAVIOUR,
    PREFERENCE,
    Cell,
    markdown_table,
    policy_table,
    safety_table,
    terminal_table,
)
from tests.unit.results.sheets import evaluation_config, trio

CONFIG = evaluation_config(best_of_n=[4], bootstrap_samples=200, samples_in_report=4)
ATTACK = '<script>alert("model")</script><img src=x onerror=alert(1)>'
HISTORY = [{"step": step, "objective/kl": 0.1 * step, "objective/score": 0.2 * step} for step in range(5)]


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
    inputs = ReportInputs(
        comparison=comparison or compare_sheets(sheets, CONFIG),
        sheets=sheets,
        histories=histories,
        run_config={"seed": 3, "note": ATTACK},
        digests={"ppo_ptx": "ab" * 32},
        command="python -m flows.rlhf seed=3 'note=<script>'",
    )
    return render_report(inputs, CONFIG)


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
        figure = SafetyScores(measure=ATTACK, layout=ATTACK, scorer=ATTACK, unit="share", values=[0.5, 0.5])
        return sheet.model_copy(
            update={"samples": samples, "benchmarks": {ATTACK: sheet.benchmarks["sums"]}, "safety": [figure]}
        )

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


def test_each_section_of_the_page_is_there(page: str) -> None:
    words = Outline(page).words
    for heading in ("Preference", "Every judge in detail", "Alignment tax", "Reward against KL", "Length"):
        assert heading in words
    for heading in ("Responses side by side", "The best and the worst", "How this was made", "Configuration"):
        assert heading in words
    assert "python -m flows.rlhf seed=3 'note=<script>'" in words


def test_safety_has_one_line_for_each_measure_layout_and_scorer() -> None:
    def figure(measure: str, layout: str, estimate: float, unit: str = "share") -> SafetyScores:
        return SafetyScores(measure=measure, layout=layout, scorer=None, unit=unit, values=[estimate] * 9)

    sheets = {
        name: sheet.model_copy(
            update={
                "safety": [
                    figure("toxicity", "basic", 0.25),
                    figure("bias entropy", "bare", 0.75, "bits"),
                    figure("toxicity", "biased", 0.5),
                ]
            }
        )
        for name, sheet in trio().items()
    }
    table = safety_table(compare_sheets(sheets, CONFIG))
    assert table.headings == ["Measure and prompt", "Scorer", "Base", "SFT", "PPO-ptx"]
    assert [row.cells[0] for row in table.rows] == [
        ("toxicity", "basic"),
        ("toxicity", "biased"),
        ("bias entropy", "bare"),
    ]
    assert [row.new_group for row in table.rows] == [False, False, True]
    assert [row.cells[2].text for row in table.rows] == ["25.0 %", "50.0 %", "0.750 bits"]
    assert table.rows[0].cells[1].text == "none needed"


def test_the_best_and_the_worst_are_those_with_the_widest_gaps() -> None:
    words = Outline(render(trio())).words
    extremes = words[words.index("The best and the worst") :]
    # PPO-ptx against the opponent's sample, gold points: +1, +1, +1, -1 (prompt 3)
    assert extremes.count("best for PPO-ptx: +1.00 points of the gold labeler") == 2
    assert extremes.count("worst for PPO-ptx: -1.00 points of the gold labeler") == 1
    assert "number 3 a :" in extremes[extremes.index("worst for") :][:200]
    assert "SFT, T = 1 (opponent)" in extremes


def test_the_page_loads_nothing_from_outside(page: str) -> None:
    for tag, attributes in Outline(page).tags:
        assert tag not in ("script", "iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "action", "data"):
            assert str(attributes.get(name) or "data:").startswith(("data:", "#")), (tag, attributes)
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
    assert page.count("data:image/svg+xml;base64,") == 4


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
    assert policy_table(comparison, PREFERENCE).headings == [
        "Policy",
        "Win %, gold labeler",
        "Win %, reward model",
        "KL, nats",
        "Length, tokens",
        "Ended %",
        "Score, gold labeler",
        "Score, reward model",
    ]
    assert policy_table(comparison, BEHAVIOUR) == (["Policy"], [])
    assert "Alignment tax" not in render(bare, comparison)


def cells(group: str) -> dict[str, dict[str, Cell]]:
    table = policy_table(compare_sheets(trio(), CONFIG), group)
    return {row.cells[0].text: dict(zip(table.headings, row.cells, strict=True)) for row in table.rows}


def test_preference_cells_by_hand() -> None:
    found = cells(PREFERENCE)
    ptx = found["PPO-ptx, T = 1"]
    assert ptx["Policy"].detail == "vs SFT, T = 1"
    assert ptx["Win %, gold labeler"].text == "75.0"
    assert ptx["Win %, gold labeler"].detail.endswith("; 0 % ties")
    assert found["SFT, T = 1"]["Win %, gold labeler"].detail.endswith("; 75 % ties")
    assert (ptx["Score, gold labeler"].text, ptx["KL, nats"].text) == ("1.50", "1.50")
    assert ptx["True + informative %"] == ("50.0", "held out 50.0")
    assert found["SFT, best of 4"]["KL, nats"].text == "\N{LESS-THAN OR EQUAL TO} 0.64"
    assert found["PPO-ptx, greedy"]["KL, nats"].text == ""
    table = policy_table(compare_sheets(trio(), CONFIG), PREFERENCE)
    assert [row.new_group for row in table.rows] == [False] * 5 + [True, False]


def test_behaviour_cells_by_hand() -> None:
    found = cells(BEHAVIOUR)
    assert list(found) == ["Base", "SFT", "PPO-ptx"]
    ptx = found["PPO-ptx"]
    assert ptx["Change vs base, points"].text == "\N{MINUS SIGN}15.0"
    assert ptx["Change vs SFT, points"].text == "+7.5"
    assert (ptx["Benchmark mean %"].text, ptx["Perplexity / base"].text, ptx["Toxicity %"].text) == (
        "65.0",
        "1.16",
        "25.0",
    )
    assert found["Base"]["Change vs base, points"].text == ""


def test_the_terminal_table_fits_a_terminal() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(terminal_table(compare_sheets({**trio(), "ppo": trio()["ppo_ptx"]}, CONFIG)))
    drawn = console.export_text()
    for expected in (
        "PPO (gamma = 0), greedy",
        "against SFT, greedy",
        "66.7 [",
        "\N{LESS-THAN OR EQUAL TO} 0.64",
        "65.0",
    ):
        assert expected in drawn
    assert "\N{HORIZONTAL ELLIPSIS}" not in drawn


def test_markdown_shows_both_tables() -> None:
    comparison = compare_sheets(trio(), CONFIG)
    markdown = markdown_table(comparison)
    for expected in ("PPO-ptx, T = 1 vs SFT, T = 1", "66.7 [", "\N{MINUS SIGN}15.0", "+7.5", comparison.notes[0]):
        assert expected in markdown
    for table in markdown.split("\n\n")[1:3]:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_markdown_escapes_names() -> None:
    sheets = trio()
    comparison = compare_sheets({"sft": sheets["sft"], "a|<b>": sheets["ppo_ptx"]}, CONFIG)
    assert "a\\|&lt;b>" in markdown_table(comparison)


def test_the_terminal_s_table_fits_into_a_hundred_columns_and_has_no_empty_column() -> None:
    sheets = trio()
    for name, sheet in sheets.items():
        sheets[name] = sheet.model_copy(update={"toxicity": None})
    console = Console(width=300, file=io.StringIO())
    console.print(terminal_table(compare_sheets(sheets, CONFIG)))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, map(str.rstrip, text.splitlines()))) <= 100
    assert "Toxic" not in text and "PPO-init" not in text and "Bench" in text
