"""The comparison as one table of text cells, drawn by the terminal, by Markdown and by the page alike."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.table import Table

from tasks.evaluation.comparison import PolicyComparison, PolicyRow
from tasks.evaluation.sheet import GREEDY
from tasks.evaluation.verdict import JUDGE_TITLES, percent, points
from tasks.evaluation.win_rate import Interval


class Cell(NamedTuple):
    """One table cell; an empty text means that the figure does not exist for this row."""

    text: str = ""
    detail: str = ""
    """Interval or second figure, shown smaller."""


class TableRow(NamedTuple):
    """One row; ``new_group`` marks the first of the greedy policies."""

    cells: list[Cell]
    new_group: bool


Column = tuple[str, Callable[[PolicyRow], Cell]]


def columns(comparison: PolicyComparison) -> list[Column]:
    """Headings with the cell each makes of a row; columns that no row fills are left out."""
    every: list[Column] = [("Policy", lambda row: Cell(row.title, f"vs {row.against}"))]
    for judge in comparison.judges:
        every.append((f"Win %, {JUDGE_TITLES[judge]}", lambda row, judge=judge: _win(row, judge)))  # type: ignore[misc]
    for judge in comparison.judges:
        every.append((f"Score, {JUDGE_TITLES[judge]}", lambda row, judge=judge: Cell(_signed(row.scores[judge], 2))))  # type: ignore[misc]
    every += [
        ("KL, nats", _kl),
        ("Benchmarks %", lambda row: Cell() if row.benchmark is None else Cell(f"{100 * row.benchmark:.1f}")),
        ("vs base, points", lambda row: _points(row.change_vs_base)),
        ("vs SFT, points", lambda row: _points(row.change_vs_sft)),
        ("Perplexity / base", lambda row: _ratio(row.perplexity_ratio)),
        (f"Toxic %, {comparison.toxicity_scorer}", lambda row: _share(row.toxicity)),
        ("True + informative %", _truth),
        ("Length", lambda row: Cell(f"{row.length:.1f}")),
        ("Ended %", lambda row: Cell(f"{100 * row.eos_rate:.1f}")),
    ]
    return [(name, cell) for name, cell in every if any(cell(row).text for row in comparison.rows)]


def table_rows(comparison: PolicyComparison) -> list[TableRow]:
    """Every row as cells, in the order of :func:`columns`."""
    drawn = columns(comparison)
    found: list[TableRow] = []
    greedy_before = True
    for row in comparison.rows:
        greedy = row.decoding == row.against_decoding == GREEDY
        found.append(TableRow([cell(row) for _, cell in drawn], new_group=greedy and not greedy_before))
        greedy_before = greedy
    return found


def terminal_table(comparison: PolicyComparison) -> Table:
    """For ``rich.print``: figure and interval under each other."""
    table = Table(title=comparison.verdict, title_justify="left", title_style="bold")
    for index, (name, _) in enumerate(columns(comparison)):
        table.add_column(name, justify="left" if index == 0 else "right", vertical="top")
    rows = table_rows(comparison)
    for index, row in enumerate(rows):
        ends_group = index + 1 < len(rows) and rows[index + 1].new_group
        table.add_row(*["\n".join(part for part in cell if part) or "-" for cell in row.cells], end_section=ends_group)
    return table


def markdown_table(comparison: PolicyComparison) -> str:
    """Verdict, table and notes as Markdown."""
    headings = [name for name, _ in columns(comparison)]
    lines = [
        f"**{_escape(comparison.verdict)}**",
        "",
        _markdown_line(headings),
        "|" + "|".join([" :--- ", *[" ---: "] * (len(headings) - 1)]) + "|",
    ]
    for row in table_rows(comparison):
        lines.append(_markdown_line([" ".join(part for part in cell if part) or "–" for cell in row.cells]))
    return "\n".join([*lines, "", *[f"- {_escape(note)}" for note in comparison.notes], ""])


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escape, cells)) + " |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _win(row: PolicyRow, judge: str) -> Cell:
    win = row.win[judge]
    low, high = 100 * win.bootstrap.low, 100 * win.bootstrap.high
    return Cell(f"{100 * win.rate:.1f}", f"[{low:.1f}, {high:.1f}], {100 * win.ties / win.prompts:.0f} % ties")


def _kl(row: PolicyRow) -> Cell:
    if row.kl is None:
        return Cell()
    return Cell(f"\N{LESS-THAN OR EQUAL TO} {row.kl.estimate:.2f}" if row.kl_is_bound else f"{row.kl.estimate:.2f}")


def _points(change: Interval | None) -> Cell:
    return Cell(*points(change).split(" ", 1)) if change is not None else Cell()


def _ratio(ratio: Interval | None) -> Cell:
    return Cell(f"{ratio.estimate:.2f}", f"[{ratio.low:.2f}, {ratio.high:.2f}]") if ratio is not None else Cell()


def _share(share: Interval | None) -> Cell:
    if share is None:
        return Cell()
    return Cell(f"{100 * share.estimate:.1f}", f"[{100 * share.low:.1f}, {100 * share.high:.1f}]")


def _truth(row: PolicyRow) -> Cell:
    if row.truth is None:
        return Cell()
    held_out = "" if row.truth.both_held_out is None else f"held out {percent(row.truth.both_held_out)}"
    return Cell(f"{100 * row.truth.both:.1f}", held_out)


def _signed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
