"""The report's figures, as SVG text: no display, no shared pyplot state, the same bytes for the same numbers."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.results.comparison import PolicyComparison, title_of
from tasks.results.judges import JUDGES
from tasks.results.sheet import GOLD, INDEPENDENT, REWARD_MODEL, SAMPLED, PolicySheet

_SERIES = ("#4a6fa5", "#b7791f", "#3b7a57", "#a23b3b", "#6b5b95", "#5f6b76")
_INK, _FAINT = "#24292f", "#d5dae0"

WINDOWS = 16
"""Points of a curve of PPO's iterations in the figure of reward against KL."""
History = Sequence[Mapping[str, float]]
"""PPO's metrics, one dict an iteration."""
_KL = "objective/kl"


def win_rate_bars(comparison: PolicyComparison) -> str:
    """Win rate of each row by each judge, with its interval and the 50 % line."""
    rows = list(reversed(comparison.rows))
    band = 0.84 / len(comparison.judges)
    figure, axes = _figure(height=1.2 + (0.3 + 0.12 * len(comparison.judges)) * len(rows))
    for place, judge in enumerate(comparison.judges):
        ruled = [(index, row.win[judge].bootstrap) for index, row in enumerate(rows) if judge in row.rulings]
        offset = (len(comparison.judges) - 1) / 2 * band - place * band
        axes.barh(
            [index + offset for index, _ in ruled],
            [100 * rate.estimate for _, rate in ruled],
            height=band * 0.86,
            color=JUDGES[judge].color,
            label=f"by the {JUDGES[judge].title}",
            xerr=[
                [100 * max(0.0, rate.estimate - rate.low) for _, rate in ruled],
                [100 * max(0.0, rate.high - rate.estimate) for _, rate in ruled],
            ],
            error_kw={"ecolor": _INK, "elinewidth": 1.1, "capsize": 2.5},
        )
    axes.axvline(50, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(rows)), [f"{row.title}\nvs {row.against}" for row in rows], fontsize=7.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"win rate, %, ties half; bars: {100 * comparison.confidence:g} % interval")
    axes.legend(frameon=False, fontsize=7.5, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)
    axes.grid(axis="x", color=_FAINT, linewidth=0.6)
    return svg_of(figure)


def benchmark_changes(comparison: PolicyComparison) -> str | None:
    """Change against the base model, else SFT, task by task and for the mean, one mark per policy; None without either."""
    based = any(row.change_vs_base is not None for row in comparison.rows)
    field, other = ("change_vs_base", "the base model") if based else ("change_vs_sft", "SFT")
    policies = [row for row in comparison.rows if getattr(row, field) is not None]
    if not policies:
        return None
    tasks = list(dict.fromkeys(change.task for change in comparison.tasks))
    labels = [*reversed(tasks), "mean of tasks"]
    figure, axes = _figure(height=1.3 + 0.38 * len(labels))
    for place, row in enumerate(policies):
        found = {change.task: getattr(change, field) for change in comparison.tasks if change.policy == row.policy}
        found["mean of tasks"] = getattr(row, field)
        offset = (len(policies) - 1) / 2 * 0.2 - place * 0.2
        for index, label in enumerate(labels):
            change = found.get(label)
            if change is not None:
                color = _SERIES[place % len(_SERIES)]
                axes.plot([100 * change.low, 100 * change.high], [index + offset] * 2, color=color, linewidth=1.6)
                axes.plot(100 * change.estimate, index + offset, "o", color=color, markersize=4.5)
        axes.plot([], [], "o-", color=_SERIES[place % len(_SERIES)], label=title_of(row.policy), markersize=4.5)
    axes.axvline(0, color=_INK, linewidth=1)
    axes.axhline(len(labels) - 1.5, color=_FAINT, linewidth=1)
    axes.set_yticks(range(len(labels)), labels, fontsize=7.5)
    axes.set_xlabel(f"change against {other}, percentage points, same items")
    axes.legend(frameon=False, fontsize=7.5, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3)
    axes.grid(axis="x", color=_FAINT, linewidth=0.6)
    return svg_of(figure)


def reward_against_kl(comparison: PolicyComparison, histories: Mapping[str, History]) -> str | None:
    """Score over the distance travelled, one panel a judge: PPO's iterations, best-of-n, and where each policy ended.

    None when there is neither a curve nor a second policy to draw.
    """
    curve = comparison.best_of_curve
    ended = [row for row in comparison.rows if row.decoding == SAMPLED and row.policy != "base" and row.kl is not None]
    if not curve and not any(histories.values()) and len(ended) < 2:
        return None
    # Without a KL of any policy the curve alone says who judged.
    scored = [*(row.scores for row in ended), *(point.scores for point in curve)]
    judges = [judge for judge in (REWARD_MODEL, GOLD, INDEPENDENT) if all(judge in scores for scores in scored)]
    figure, panels = panels_of(len(judges), height=0.9 + 2.1 * len(judges))
    names = list(dict.fromkeys([*(row.policy for row in ended), *histories]))
    colors = {policy: _SERIES[place % len(_SERIES)] for place, policy in enumerate(names)}
    for axes, judge in zip(panels, judges, strict=True):
        for policy, history in histories.items():
            curve_of = JUDGES[judge].curve
            points = windows([(row[_KL], row[curve_of]) for row in history if {_KL, curve_of} <= row.keys()])
            if points:
                axes.plot(
                    *zip(*points, strict=True), ".-", color=colors[policy], alpha=0.7, linewidth=1.2, markersize=4
                )
        if curve:
            picks = [point.scores[judge] for point in curve]
            axes.plot([point.kl for point in curve], picks, "x-", color=_INK, linewidth=0.9, markersize=4)
        for row in ended:
            assert row.kl is not None
            axes.plot(row.kl.estimate, row.scores[judge], "o", color=colors[row.policy], markersize=6)
        axes.set_ylabel(f"mean score,\n{JUDGES[judge].title}")
        axes.margins(x=0.06, y=0.12)
        axes.grid(color=_FAINT, linewidth=0.6)
    for row in ended:
        panels[0].plot([], [], "o-", color=colors[row.policy], label=title_of(row.policy), markersize=5, linewidth=1)
    if curve:
        panels[0].plot([], [], "x-", color=_INK, label="SFT, best of n", markersize=4, linewidth=0.9)
    panels[0].legend(frameon=False, fontsize=7.5, loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=3)
    panels[-1].set_xlabel("KL to the reference policy, nats (best of n: bound of its KL to SFT)")
    return svg_of(figure)


def windows(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means over neighbouring iterations, at most ``WINDOWS`` of them in order: single iterations jump back and forth."""
    if len(points) <= WINDOWS:
        return list(points)
    parts = np.array_split(np.asarray(points, dtype=np.float64), WINDOWS)
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts]


def length_histogram(sheets: Mapping[str, PolicySheet]) -> str:
    """Lengths of the sampled responses, one outline a policy."""
    figure, axes = _figure(height=2.7)
    lengths = {name: [response.tokens for response in sheet.responses(SAMPLED)] for name, sheet in sheets.items()}
    longest = max(max(values) for values in lengths.values())
    step = max(1, -(-longest // 40))
    edges = [start - 0.5 for start in range(0, longest + 2 * step, step)]
    for place, (name, values) in enumerate(lengths.items()):
        share = [100 / len(values)] * len(values)
        color = _SERIES[place % len(_SERIES)]
        axes.hist(values, edges, weights=share, histtype="step", color=color, linewidth=1.5, label=title_of(name))
    axes.set_xlabel("tokens in a sampled response, EOS included")
    axes.set_ylabel("% of responses")
    axes.legend(frameon=False, fontsize=7.5, loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=3)
    axes.grid(axis="y", color=_FAINT, linewidth=0.6)
    return svg_of(figure)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure, panels = panels_of(1, height)
    return figure, panels[0]


def panels_of(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Panels on top of each other that share their horizontal axis."""
    figure = Figure(figsize=(8.6, height), layout="constrained")
    panels = list(figure.subplots(count, sharex=True, squeeze=False)[:, 0])
    for axes in panels:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color("#8b949e")
        axes.tick_params(colors=_INK, labelsize=7.5, length=3)
        axes.xaxis.label.set_fontsize(7.8)
        axes.yaxis.label.set_fontsize(7.8)
        axes.set_axisbelow(True)
    return figure, panels


def svg_of(figure: Figure) -> str:
    """The same bytes for the same figure."""
    target = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "plumbline"}):
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    return target.getvalue()
