"""What is printed is what was said: texts of data, models, paths and remedies are neither styles nor pictures."""

import io
import re

import pytest
from rich.table import Table

from flows import chat, terminal
from flows.ask import explain
from flows.ask.doctor import page
from flows.ask.explain import Foreseen
from tasks.engine.findings import Finding
from tests.unit.test_house import ROOT

AS_IT_STANDS = "set rivals=[dpo] in [b]my/[/]run of my_reward.py:ok:score :smile:"


def test_a_sentence_a_cell_and_a_heading_are_printed_as_they_stand() -> None:
    file = io.StringIO()
    screen = terminal.console(file)
    table = Table(AS_IT_STANDS)
    table.add_row(AS_IT_STANDS)
    screen.print(AS_IT_STANDS)
    screen.print(table)
    assert file.getvalue().count(AS_IT_STANDS) == 3


def test_the_doctors_page_shows_a_finding_to_the_letter() -> None:
    file = io.StringIO()
    found = [Finding("error", "ppo.rewards", AS_IT_STANDS)]
    page.show(terminal.console(file), None, {"rewards": found, "data": []})  # type: ignore[arg-type]
    first, second = file.getvalue().splitlines()
    assert first == "rewards 1 wrong data fine"
    assert second.startswith("error ") and AS_IT_STANDS in second


def test_two_answers_side_by_side_are_printed_to_the_letter() -> None:
    file = io.StringIO()
    terminal.console(file).print(chat.side_by_side(["a:ok:", "[b]"], [":100: [/]", r"\[x]"]))
    assert all(text in file.getvalue() for text in ("a:ok:", "[b]", ":100: [/]", r"\[x]"))


def test_explain_shows_reasons_to_the_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    screen = terminal.console(file)
    monkeypatch.setattr(type(screen), "is_terminal", True)
    monkeypatch.setattr(terminal, "console", lambda: screen)
    monkeypatch.setattr(explain, "plan_of", lambda _: [Foreseen("ppo", explain.WILL_RUN, (AS_IT_STANDS,), None)])
    explain.explain(None)  # type: ignore[arg-type]
    assert AS_IT_STANDS in file.getvalue()


def test_nobody_opens_a_terminal_of_his_own() -> None:
    """The bars' columns read no markup."""
    makers = {
        path.name for path in (ROOT / "flows").rglob("*.py") if re.search(r"\bConsole\(", path.read_text("utf-8"))
    }
    assert makers == {"terminal.py", "bars.py"}
