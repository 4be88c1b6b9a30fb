"""The report's figures, as SVG text: no display, no shared pyplot state, the same bytes for the same numbers."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.evaluation.comparison import PolicyComparison, PolicyRow, title_of
from tasks.evaluation.sheet import GOLD, REWARD_MODEL
from tasks.evaluation.verdict import JUDGE_TITLES

_COLORS = {GOLD: "#b7791f", REWARD_MODEL: "#4a6fa5"}
_SERIES = ("#4a6fa5", "#b7791f", "#3b7a57", "#a23b3b", "#6b5b95", "#5f6b76")
_INK, _FAINT = "#24292f", "#d5dae0"

History = Sequence[Mapping[str, float]]
"""One dict an iteration: step, kl, score, and whatever else was logged."""


def win_rate_bars(comparison: PolicyComparison) -> str:
    """Win rate of each row by each judge, with its interval and the 50 % line."""
    rows = list(reversed(comparison.rows))
    figure, axes = _figure(height=1.2 + 0.42 * len(rows))
    band = 0.8 / len(comparison.judges)
    for place, judge in enumerate(comparison.judges):
        rates = [row.win[judge].bootstrap for row in rows]
        offset = (len(comparison.judges) - 1) / 2 * band - place * band
        axes.barh(
            [index + offset for index in range(len(rows))],
            [100 * rate.estimate for rate in rates],
            height=band * 0.86,
            color=_COLORS[judge],
            label=f"by the {JUDGE_TITLES[judge]}",
            xerr=[
                [100 * max(0.0, rate.estimate - rate.low) for rate in rates],
                [100 * max(0.0, rate.high - rate.estimate) for rate in rates],
            ],
            error_kw={"ecolor": _INK, "elinewidth": 1.1, "capsize": 2.5},
        )
    axes.axvline(50, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(rows)), [f"{row.title}\nvs {row.against}" for row in rows], fontsize=8)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"win rate, %, ties half; bars: {100 * comparison.confidence:g} % interval")
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)
    axes.grid(axis="x", color=_FAINT, linewidth=0.6)
    return _svg(figure)


def benchmark_changes(comparison: PolicyComparison) -> str | None:
    """Change against the base model, task by task and for the mean, one mark per policy; None without a base."""
    policies = [row for row in comparison.rows if row.change_vs_base is not None and row.policy != "base"]
    if not policies:
        return None
    tasks = list(dict.fromkeys(change.task for change in comparison.tasks))
    labels = [*reversed(tasks), "mean of tasks"]
    figure, axes = _figure(height=1.3 + 0.38 * len(labels))
    for place, row in enumerate(policies):
        found = {change.task: change.change_vs_base for change in comparison.tasks if change.policy == row.policy}
        found["mean of tasks"] = row.change_vs_base
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
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_xlabel("change against the base model, percentage points, same items")
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3)
    axes.grid(axis="x", color=_FAINT, linewidth=0.6)
    return _svg(figure)


def reward_against_kl(comparison: PolicyComparison, histories: Mapping[str, History]) -> str | None:
    """Score over the distance travelled: PPO's iterations, best-of-n, and where each policy ended by each judge."""
    curve = comparison.best_of_curve
    ended = [
        row for row in comparison.rows if row.decoding == "sampled" and row.policy != "base" and row.kl is not None
    ]
    if not curve and not any(histories.values()) and len(ended) < 2:
        return None
    figure, axes = _figure(height=3.6)
    colors = {policy: _SERIES[place % len(_SERIES)] for place, policy in enumerate(row.policy for row in ended)}
    for policy, history in histories.items():
        points = [(step["kl"], step["score"]) for step in history if "kl" in step and "score" in step]
        if points:
            kls, scores = zip(*points, strict=True)
            color = colors.setdefault(policy, _INK)
            axes.plot(kls, scores, ".-", color=color, alpha=0.35, linewidth=0.9, markersize=3)
    for place, row in enumerate(ended):
        _endpoint(axes, row, colors[row.policy], below=place % 2 == 1)
    axes.margins(x=0.16, y=0.1)
    for judge, style in ((REWARD_MODEL, "-"), (GOLD, "--")):
        if curve and judge in curve[0].scores:
            scores_of_picks = [point.scores[judge] for point in curve]
            axes.plot(
                [point.kl for point in curve], scores_of_picks, f"x{style}", color=_INK, linewidth=0.9, markersize=4
            )
    axes.plot(
        [], [], "ok", markersize=5, label="reward model (line: PPO training prompts)", linestyle="-", linewidth=0.9
    )
    if GOLD in comparison.judges:
        axes.plot([], [], "Dk", markersize=5, label="gold labeler", markerfacecolor="white")
    if curve:
        axes.plot([], [], "x-k", markersize=4, linewidth=0.9, label="best of n (dashed: gold)")
    axes.set_xlabel("KL to the reference policy, nats per response (best of n: upper bound)")
    axes.set_ylabel("mean score")
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=2)
    axes.grid(color=_FAINT, linewidth=0.6)
    return _svg(figure)


def _endpoint(axes: Axes, row: PolicyRow, color: str, *, below: bool) -> None:
    assert row.kl is not None
    for judge, marker, fill in ((REWARD_MODEL, "o", color), (GOLD, "D", "white")):
        if judge in row.scores:
            axes.plot(row.kl.estimate, row.scores[judge], marker, color=color, markersize=7, markerfacecolor=fill)
    top = max(row.scores.values())
    axes.annotate(
        title_of(row.policy),
        (row.kl.estimate, top),
        xytext=(7, -12 if below else 5),
        textcoords="offset points",
        fontsize=8,
        color=color,
    )


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.8, height), layout="constrained")
    axes = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#8b949e")
    axes.tick_params(colors=_INK, labelsize=8, length=3)
    axes.xaxis.label.set_fontsize(8.5)
    axes.yaxis.label.set_fontsize(8.5)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure) -> str:
    target = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "plumbline"}):
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    return target.getvalue()
