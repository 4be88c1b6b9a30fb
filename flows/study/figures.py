"""The study's figures, as SVG text: no display, no shared pyplot state, the same bytes for the same numbers."""

import io
import math
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flows.study.results import Chart
from flows.study.rules import seed_interval

_SERIES = ("#4a6fa5", "#b7791f", "#3b7a57", "#a23b3b", "#6b5b95", "#7a6a4f", "#2f8f9d", "#8b949e")
_KINDS = {"gold labeler": "#b7791f", "reward model": "#4a6fa5"}
_INK, _FAINT = "#24292f", "#d5dae0"


def draw(panels: Sequence[Chart], confidence: float) -> str | None:
    """All panels side by side; None when there is nothing to draw."""
    full = [panel for panel in panels if any(item.x for item in panel.series) or panel.traces]
    if not full:
        return None
    figure = Figure(figsize=(4.1 * len(full) if len(full) > 1 else 5.6, 3.3), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(full), squeeze=False)[0], full, strict=True):
        _panel(axes, panel, confidence)
    target = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "plumbline"}):
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    return target.getvalue()


def _panel(axes: Axes, panel: Chart, confidence: float) -> None:
    for place, series in enumerate(panel.series):
        color = _KINDS.get(series.label) or _SERIES[place % len(_SERIES)]
        intervals = [seed_interval(list(values.values()), confidence) for values in series.per_seed]
        means = [interval.estimate for interval in intervals]
        known = [index for index, interval in enumerate(intervals) if math.isfinite(interval.low)]
        axes.fill_between(
            [series.x[index] for index in known],
            [intervals[index].low for index in known],
            [intervals[index].high for index in known],
            color=color,
            alpha=0.16,
            linewidth=0,
        )
        axes.plot(series.x, means, "o-", color=color, linewidth=1.5, markersize=4.5, label=series.label or None)
        for x, values in zip(series.x, series.per_seed, strict=True):
            axes.plot([x] * len(values), list(values.values()), ".", color=color, alpha=0.55, markersize=4)
    for trace in panel.traces:
        axes.plot(
            trace.x,
            trace.y,
            color=_KINDS[trace.judge],
            alpha=0.9 if trace.fitted else 0.5,
            label=trace.label or None,
            linestyle="--" if trace.fitted else "-",
            linewidth=1.6 if trace.fitted else 0.8,
            marker="" if trace.fitted else ".",
            markersize=3.5,
        )
    if panel.level is not None:
        name, height = panel.level
        axes.axhline(height, color=_INK, linewidth=1, linestyle=(0, (4, 3)), label=name)
    if panel.x_scale != "linear":
        ticks = sorted({x for series in panel.series for x in series.x})
        smallest = min((x for x in ticks if x > 0), default=1.0)
        if panel.x_scale == "symlog":
            axes.set_xscale("symlog", linthresh=smallest, linscale=0.5)
            axes.set_xlim(-0.3 * smallest, max(ticks, default=1.0) * 1.4)
        else:
            axes.set_xscale(panel.x_scale)
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#8b949e")
    axes.tick_params(colors=_INK, labelsize=8, length=3)
    axes.set_xlabel(panel.x_label, fontsize=8.5)
    axes.set_ylabel(panel.y_label, fontsize=8.5)
    axes.set_title(panel.title, fontsize=9.5, loc="left")
    axes.grid(color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=7.5)
