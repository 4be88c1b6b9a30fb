"""The comparison as tables of text cells, drawn by the terminal, by Markdown and by the page alike."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tasks.results.comparison import PolicyComparison, PolicyRow, Ruling, title_of
from tasks.results.judges import JUDGES
from tasks.results.safety_figure import SafetyFigure
from tasks.results.sheet import GREEDY
from tasks.results.verdict import bias, deciding_judge, points
from tasks.results.win_rate import Interval, WinRate

PREFERENCE = "preference"
"""Columns about the responses: every way of answering has them."""
WIDTH = 100
"""Columns of a terminal that the main table fits into."""
BEHAVIOUR = "behaviour"
"""Columns about the policy as a whole."""


class Cell(NamedTuple):
    """One table cell; an empty text means that the figure does not exist for this row."""

    text: str = ""
    detail: str = ""
    """Interval or second figure, shown smaller."""


class Column(NamedTuple):
    """A heading and what it shows of a row."""

    heading: str
    group: str
    cell: Callable[[PolicyRow], Cell]


class TableRow(NamedTuple):
    """One row; ``new_group`` marks the first of the greedy policies."""

    cells: list[Cell]
    new_group: bool


class PolicyTable(NamedTuple):
    """Headings and rows; the first column names the policy."""

    headings: list[str]
    rows: list[TableRow]


def policy_table(comparison: PolicyComparison, group: str) -> PolicyTable:
    """One group of columns; columns that no row fills and rows that fill no column are left out."""
    first = Column("Policy", group, _answering if group == PREFERENCE else lambda row: Cell(title_of(row.policy)))
    found = [
        column
        for column in _columns(comparison)
        if column.group == group and any(column.cell(row).text for row in comparison.rows)
    ]
    shown = [row for row in comparison.rows if any(column.cell(row).text for column in found)]
    greedy = [row.against_decoding == GREEDY for row in shown]
    rows = [
        TableRow(
            [column.cell(row) for column in (first, *found)],
            new_group=index > 0 and greedy[index] and not greedy[index - 1],
        )
        for index, row in enumerate(shown)
    ]
    return PolicyTable([column.heading for column in (first, *found)], rows)


def judge_table(comparison: PolicyComparison) -> PolicyTable:
    """Every judge's ruling on every way of answering, with all that a sceptical reader asks for."""
    headings = ["Policy", "Judge", "Prompts", "Win %", "Wilson interval", "At equal length %", "Ties %", "Held out %"]
    effects = ["Order changed winner %", "Position bias", "No verdict"]
    asked = any(ruling.orders for row in comparison.rows for ruling in row.rulings.values())
    styled = any(ruling.style_controlled for row in comparison.rows for ruling in row.rulings.values())
    grouped = any(ruling.win.clustered for row in comparison.rows for ruling in row.rulings.values())
    rows = [
        TableRow(
            [
                _answering(row),
                Cell(JUDGES[judge].title),
                *_ruling_cells(ruling),
                *([_share(ruling.style_controlled)] if styled else []),
                *([_over_owners(ruling)] if grouped else []),
                *(_order_cells(ruling) if asked else []),
            ],
            new_group=index > 0 and place == 0,
        )
        for index, row in enumerate(comparison.rows)
        for place, (judge, ruling) in enumerate(row.rulings.items())
    ]
    more = ["At equal style %"] * styled + ["Interval over owners"] * grouped
    return PolicyTable([*headings, *more, *(effects if asked else [])], rows)


def _over_owners(ruling: Ruling) -> Cell:
    found = ruling.win.clustered
    return Cell(f"[{100 * found.low:.1f}, {100 * found.high:.1f}]") if found else Cell()


def _ruling_cells(ruling: Ruling) -> list[Cell]:
    win = ruling.win
    held_out = ruling.win_held_out
    return [
        Cell(str(win.prompts)),
        _share(win.bootstrap),
        Cell(f"[{100 * win.wilson.low:.1f}, {100 * win.wilson.high:.1f}]"),
        _share(ruling.length_controlled),
        Cell(f"{100 * win.ties / win.prompts:.0f}"),
        Cell(f"{100 * held_out.rate:.1f}", f"{held_out.prompts} prompts") if held_out else Cell(),
    ]


def _order_cells(ruling: Ruling) -> list[Cell]:
    orders = ruling.orders
    if orders is None:
        return [Cell(), Cell(), Cell()]
    return [
        Cell(f"{100 * orders.inconsistent / orders.pairs:.1f}", f"{orders.inconsistent} of {orders.pairs}"),
        Cell(bias(orders.position_bias), f"{orders.verdicts} verdicts"),
        Cell(str(orders.unjudged), f"{orders.malformed} malformed answers"),
    ]


def kind_table(comparison: PolicyComparison) -> PolicyTable:
    """Win rate by kind of prompt, by the deciding judge; no rows when prompts carry no kind."""
    judge = deciding_judge(comparison.rows, comparison.judges)
    kinds = sorted({kind for row in comparison.rows for kind in row.rulings[judge].by_kind})
    rows = []
    for row in comparison.rows if len(kinds) > 1 else []:
        found = row.rulings[judge].by_kind
        cells = [
            Cell(
                f"{100 * win.rate:.1f}",
                f"[{100 * win.bootstrap.low:.0f}, {100 * win.bootstrap.high:.0f}], {win.prompts}",
            )
            if (win := found.get(kind))
            else Cell()
            for kind in kinds
        ]
        rows.append(TableRow([_answering(row), *cells], new_group=False))
    return PolicyTable(["Policy", *kinds], rows)


def safety_table(comparison: PolicyComparison) -> PolicyTable:
    """One line for each measure, prompt layout and scorer; one column for each policy. Scorers are never mixed."""
    policies = [policy for policy, figures in comparison.safety.items() if figures]
    found = {
        (figure.measure, figure.layout, figure.scorer, policy): figure
        for policy in policies
        for figure in comparison.safety[policy]
    }
    measures = list(dict.fromkeys(key[0] for key in found))
    lines = sorted(dict.fromkeys(key[:3] for key in found), key=lambda line: measures.index(line[0]))
    rows = [
        TableRow(
            [
                Cell(measure, layout),
                Cell(scorer or "none needed"),
                *[_safety_cell(found.get((measure, layout, scorer, policy))) for policy in policies],
            ],
            new_group=index > 0 and lines[index - 1][0] != measure,
        )
        for index, (measure, layout, scorer) in enumerate(lines)
    ]
    return PolicyTable(["Measure and prompt", "Scorer", *map(title_of, policies)], rows)


def _safety_cell(figure: SafetyFigure | None) -> Cell:
    if figure is None:
        return Cell()
    if figure.unit == "share":
        return Cell(
            f"{100 * figure.estimate:.1f} %", f"[{100 * figure.low:.1f}, {100 * figure.high:.1f}], n = {figure.n}"
        )
    return Cell(f"{figure.estimate:.3f} {figure.unit}", f"[{figure.low:.3f}, {figure.high:.3f}], n = {figure.n}")


def terminal_table(comparison: PolicyComparison) -> Table:
    """The main figures in at most ``WIDTH`` columns, for ``rich.print``; what no row has is left out, then the last columns.

    The deciding judge's interval is shown; the others', and what did not fit, stand in the report.
    """
    first = deciding_judge(comparison.rows, comparison.judges)
    columns: dict[str, Callable[[PolicyRow], Cell]] = {
        f"Win %\n{JUDGES[judge].short}": partial(_win, judge=judge) for judge in comparison.judges
    }
    columns |= {
        "New\nreq. %": partial(_unseen, judge=first),
        "vs PPO-\ninit %": lambda row: _by_any(row.against_start, first),
        "vs yard-\nstick %": lambda row: _by_any(row.against_yardstick, first),
        "KL\nnats": _kl,
        "Bench\n%": _benchmark,
        "True,\ninf. %": _truth,
        "PPL\nratio": lambda row: _ratio(row.perplexity_ratio),
        "Toxic\n%": lambda row: _share(row.toxicity),
    }
    interval = f"Win %\n{JUDGES[first].short}"
    texts: dict[str, list[str]] = {"Policy\n": [row.title for row in comparison.rows]}
    for heading, cell_of in columns.items():
        cells = [cell_of(row) for row in comparison.rows]
        if any(cell.text for cell in cells):
            texts[heading] = [
                f"{cell.text} {cell.detail.partition(';')[0]}" if heading == interval else cell.text or "-"
                for cell in cells
            ]
    groups = [f"against {row.against}" for row in comparison.rows]
    texts["Policy\n"] = [*texts["Policy\n"], max(groups, key=len)]  # the groups' names are as wide as policies'
    while sum(max(map(len, [*heading.split("\n"), *cells])) + 1 for heading, cells in texts.items()) > WIDTH:
        texts.popitem()
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in texts:
        table.add_column(heading, justify="left" if heading == "Policy\n" else "right", no_wrap=True)
    for place, group in enumerate(groups):
        if place == 0 or groups[place - 1] != group:
            table.add_row(group, style="dim")
        table.add_row(*[cells[place] for cells in texts.values()])
    return table


def markdown_table(comparison: PolicyComparison) -> str:
    """Verdict, tables and notes as Markdown."""
    lines = [f"**{_escape(comparison.verdict)}**", ""]
    for group in (PREFERENCE, BEHAVIOUR):
        table = policy_table(comparison, group)
        if table.rows:
            lines += [_markdown_line(table.headings), _markdown_line([":---", *["---:"] * (len(table.headings) - 1)])]
            for row in table.rows:
                lines.append(_markdown_line([" ".join(part for part in cell if part) or "–" for cell in row.cells]))
            lines.append("")
    return "\n".join([*lines, *[f"- {_escape(note)}" for note in comparison.notes], ""])


def _columns(comparison: PolicyComparison) -> list[Column]:
    judges = comparison.judges
    first = deciding_judge(comparison.rows, judges)
    return [
        *[Column(f"Win %, {JUDGES[judge].title}", PREFERENCE, partial(_win, judge=judge)) for judge in judges],
        # The other judges' are in the table of judges.
        Column("At equal length %", PREFERENCE, partial(_controlled, judge=first)),
        Column("At equal style %", PREFERENCE, partial(_styled, judge=first)),
        Column("New requests %", PREFERENCE, partial(_unseen, judge=first)),
        Column("Against PPO-init %", PREFERENCE, lambda row: _by_any(row.against_start, first)),
        Column("Against yardstick %", PREFERENCE, lambda row: _by_any(row.against_yardstick, first)),
        Column("KL, nats", PREFERENCE, _kl),
        Column("True + informative %", PREFERENCE, _truth),
        Column("Length, tokens", PREFERENCE, lambda row: Cell(f"{row.length:.1f}")),
        Column("Ended %", PREFERENCE, lambda row: Cell(f"{100 * row.eos_rate:.1f}")),
        *[Column(f"Score, {JUDGES[judge].title}", PREFERENCE, partial(_score, judge=judge)) for judge in judges],
        Column("Benchmark mean %", BEHAVIOUR, _benchmark),
        Column("Change vs base, points", BEHAVIOUR, lambda row: _points(row.change_vs_base)),
        Column("Change vs SFT, points", BEHAVIOUR, lambda row: _points(row.change_vs_sft)),
        Column("Perplexity / base", BEHAVIOUR, lambda row: _ratio(row.perplexity_ratio)),
        Column("Toxicity %", BEHAVIOUR, lambda row: _share(row.toxicity)),
    ]


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escape, cells)) + " |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _answering(row: PolicyRow) -> Cell:
    return Cell(row.title, f"vs {row.against}")


def _win(row: PolicyRow, judge: str) -> Cell:
    if judge not in row.rulings:
        return Cell()
    win = row.win[judge]
    low, high = 100 * win.bootstrap.low, 100 * win.bootstrap.high
    return Cell(f"{100 * win.rate:.1f}", f"[{low:.1f}, {high:.1f}]; {100 * win.ties / win.prompts:.0f} % ties")


def _controlled(row: PolicyRow, judge: str) -> Cell:
    return _share(row.rulings[judge].length_controlled) if judge in row.rulings else Cell()


def _styled(row: PolicyRow, judge: str) -> Cell:
    return _share(row.rulings[judge].style_controlled) if judge in row.rulings else Cell()


def _unseen(row: PolicyRow, judge: str) -> Cell:
    """On requests that no training prompt makes; nothing where all are such."""
    ruling = row.rulings[judge]
    if ruling.win_unseen is None or ruling.win_unseen.prompts == ruling.win.prompts:
        return Cell()
    return Cell(
        _share(ruling.win_unseen.bootstrap).text,
        f"{_share(ruling.win_unseen.bootstrap).detail}; {ruling.win_unseen.prompts} prompts",
    )


def _by_any(wins: Mapping[str, WinRate], judge: str) -> Cell:
    """By the deciding judge if it gives scores, else by the first that does."""
    won = wins.get(judge) or next(iter(wins.values()), None)
    return _share(won.bootstrap) if won else Cell()


def _score(row: PolicyRow, judge: str) -> Cell:
    if judge not in row.scores:
        return Cell()
    return Cell(f"{row.scores[judge]:.2f}".replace("-", "\N{MINUS SIGN}"))


def _kl(row: PolicyRow) -> Cell:
    if row.kl is None:
        return Cell()
    bound = "\N{LESS-THAN OR EQUAL TO} " if row.kl_is_bound else ""
    return Cell(f"{bound}{row.kl.estimate:.2f}".replace("-", "\N{MINUS SIGN}"))


def _benchmark(row: PolicyRow) -> Cell:
    return Cell() if row.benchmark is None else Cell(f"{100 * row.benchmark:.1f}")


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
    held_out = "" if row.truth.both_held_out is None else f"held out {100 * row.truth.both_held_out:.1f}"
    return Cell(f"{100 * row.truth.both:.1f}", held_out)
