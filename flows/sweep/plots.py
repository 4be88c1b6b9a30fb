"""The figures of a sweep's report. A figure is drawn once and saved as SVG for the page and as PNG for the tracker."""

import io
import itertools
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flows.sweep.config import SweepConfig
from flows.sweep.findings import BASELINES, MAXIMISED, TITLES, Findings, judge_title
from flows.sweep.record import SweptPoint, short

_INK, _FAINT, _SOFT = "#24292f", "#d5dae0", "#8b949e"
_FRONT, _BEST = "#4a6fa5", "#b7791f"
UNITS = {"win_rate": "%", "score": "points", "kl": "nats", "regression": "points"}
SHARES = ("win_rate", "regression")
LEAST_GRID_SHARE = 0.5  # of the combinations of two knobs; with fewer points a heat map is mostly holes


def tradeoff(records: Sequence[SweptPoint], findings: Findings, config: SweepConfig) -> Figure | None:
    """Quality over each cost: the front, what it dominates, the best point and the constraint."""
    costs = findings.objectives[1:]
    if not costs or not findings.values:
        return None
    figure, panels = _panels(len(costs), width=4.6, height=3.7)
    quality = findings.objectives[0]
    errors = {point.number: _interval(point, findings) for point in records}
    for axes, cost in zip(panels, costs, strict=True):
        for number, found in findings.values.items():
            x, y = _scaled(cost, found[cost]), _scaled(quality, found[quality])
            on_front, best = not findings.dominated[number], number == findings.best
            color = _BEST if best else _FRONT if on_front else _SOFT
            low, high = errors.get(number) or (y, y)
            axes.plot([x, x], [low, high], color=color, linewidth=1, alpha=0.45)
            fill = color if on_front else "white"
            axes.plot(x, y, "*" if best else "o", color=color, markerfacecolor=fill, markersize=12 if best else 6.5)
            axes.annotate(str(number), (x, y), xytext=(6, 4), textcoords="offset points", fontsize=8, color=color)
        if cost == "regression":
            axes.axvline(100 * config.max_regression, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlabel(_axis(cost, findings, config))
        axes.grid(color=_FAINT, linewidth=0.6)
        axes.margins(x=0.12, y=0.12)
    panels[0].set_ylabel(_axis(quality, findings, config))
    return figure


def heat_maps(records: Sequence[SweptPoint], findings: Findings, config: SweepConfig) -> dict[tuple[str, str], Figure]:
    """For each pair of swept knobs: every objective over the two, as means over whatever else was swept.

    Where most combinations were run it is a grid of cells; where a search chose scattered points, coloured points.
    """
    knobs = list(dict.fromkeys(knob for point in records for knob in point.values))
    knobs = [knob for knob in knobs if len({point.values.get(knob) for point in records}) > 1]
    names = list(dict.fromkeys(name for found in findings.values.values() for name in found))
    figures: dict[tuple[str, str], Figure] = {}
    if not names:
        return figures
    for across, down in itertools.combinations(knobs, 2):
        figure, panels = _panels(len(names), width=4.6, height=3.4)
        for axes, name in zip(panels, names, strict=True):
            cells = _cells(records, findings, name, across, down)
            columns, rows = (_ordered({point.values[knob] for point in records}) for knob in (across, down))
            if len({(point.values[across], point.values[down]) for point in records}) >= LEAST_GRID_SHARE * len(
                columns
            ) * len(rows):
                _grid(axes, cells, columns, rows, name)
            else:
                _scatter(axes, cells, name)
            axes.set_xlabel(across)
            axes.set_ylabel(down)
            axes.set_title(_axis(name, findings, config), fontsize=8.5, color=_INK)
        figures[across, down] = figure
    return figures


def lines(records: Sequence[SweptPoint], findings: Findings, config: SweepConfig) -> dict[str, Figure]:
    """For each swept knob: every objective over its values, one mark a point."""
    knobs = list(dict.fromkeys(knob for point in records for knob in point.values))
    names = list(dict.fromkeys(name for found in findings.values.values() for name in found))
    figures = {}
    for knob in knobs:
        values = _ordered({point.values[knob] for point in records})
        if len(values) < 2 or not names:
            continue
        figure, panels = _panels(len(names), width=4.6, height=3.0)
        for axes, name in zip(panels, names, strict=True):
            for point in records:
                found = findings.values.get(point.number, {})
                if name in found:
                    color = _BEST if point.number == findings.best else _FRONT
                    axes.plot(
                        values.index(point.values[knob]), _scaled(name, found[name]), "o", color=color, markersize=6
                    )
            axes.set_xticks(
                range(len(values)), [short(value) for value in values], rotation=30 if len(values) > 6 else 0
            )
            axes.set_xlabel(knob)
            axes.set_title(_axis(name, findings, config), fontsize=8.5, color=_INK)
            axes.grid(color=_FAINT, linewidth=0.6)
        figures[knob] = figure
    return figures


def svg(figure: Figure) -> str:
    """The same numbers give the same text."""
    target = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "plumbline"}):
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    return target.getvalue()


def png(figure: Figure) -> bytes:
    """For trackers, which show pictures but no SVG."""
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=150, metadata={"Software": None})
    return target.getvalue()


def _cells(
    records: Sequence[SweptPoint], findings: Findings, name: str, across: str, down: str
) -> dict[tuple[str, str], float]:
    """Mean of an objective by the values of two knobs."""
    found: dict[tuple[str, str], list[float]] = {}
    for point in records:
        values = findings.values.get(point.number, {})
        if name in values:
            found.setdefault((point.values[across], point.values[down]), []).append(_scaled(name, values[name]))
    return {place: sum(values) / len(values) for place, values in found.items()}


def _grid(
    axes: Axes, cells: Mapping[tuple[str, str], float], columns: Sequence[str], rows: Sequence[str], name: str
) -> None:
    grid = [[cells.get((column, row), float("nan")) for column in columns] for row in rows]
    image = axes.imshow(grid, cmap=_colors(name), aspect="auto", origin="lower")
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            value = cells.get((column, row))
            text = "–" if value is None else _number(name, value)
            dark = value is not None and sum(image.to_rgba(np.array([value]))[0][:3]) < 1.7
            axes.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if dark else _INK)
    axes.set_xticks(range(len(columns)), [short(column) for column in columns])
    axes.set_yticks(range(len(rows)), [short(row) for row in rows])
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)


def _scatter(axes: Axes, cells: Mapping[tuple[str, str], float], name: str) -> None:
    xs, ys = zip(*((float(x), float(y)) for x, y in cells), strict=True)
    dots = axes.scatter(xs, ys, c=list(cells.values()), cmap=_colors(name), edgecolors=_INK, linewidths=0.6, s=60)
    bar = axes.figure.colorbar(dots, ax=axes)
    bar.ax.tick_params(labelsize=7)
    axes.grid(color=_FAINT, linewidth=0.6)


def _colors(name: str) -> str:
    """Dark is good in every panel."""
    return "Blues" if name in MAXIMISED else "Blues_r"


def _ordered(values: set[str]) -> list[str]:
    """Numbers by size, anything else by name."""
    try:
        return sorted(values, key=float)
    except ValueError:
        return sorted(values)


def _interval(point: SweptPoint, findings: Findings) -> tuple[float, float] | None:
    if findings.objectives[0] != "win_rate":
        return None
    low, high = (point.metrics.get(f"policy/win_rate_{findings.judge}_{end}") for end in ("low", "high"))
    return None if low is None or high is None else (100 * low, 100 * high)


def _scaled(name: str, value: float) -> float:
    return 100 * value + 0.0 if name in SHARES else value


def _number(name: str, value: float) -> str:
    return (f"{value:+.1f}" if name == "regression" else f"{value:.1f}" if name in SHARES else f"{value:.2f}").replace(
        "-", "\N{MINUS SIGN}"
    )


def _axis(name: str, findings: Findings, config: SweepConfig) -> str:
    detail = f"by the {judge_title(findings.judge or '')}" if name in MAXIMISED else ""
    if name == "regression":
        detail = f"vs {BASELINES[config.regression_against]}"
    return " ".join(part for part in (TITLES[name], detail) if part) + f", {UNITS[name]}"


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Panels in rows of two, as wide as a page."""
    rows = (count + 1) // 2
    figure = Figure(figsize=(width * min(count, 2), height * rows), layout="constrained")
    panels = [axes for row in figure.subplots(rows, min(count, 2), squeeze=False) for axes in row]
    for axes in panels[count:]:
        axes.set_visible(False)
    for axes in panels[:count]:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(_SOFT)
        axes.tick_params(colors=_INK, labelsize=8, length=3)
        axes.xaxis.label.set_fontsize(8.5)
        axes.yaxis.label.set_fontsize(8.5)
        axes.set_axisbelow(True)
    return figure, panels[:count]
