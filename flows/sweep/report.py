"""A sweep's report: a table of points, one self-contained page, and its pictures."""

import base64
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from flows.sweep import plots
from flows.sweep.findings import BASELINES, MAXIMISED, TITLES, Findings, judge_title, measured, permitted, shown, weigh
from flows.sweep.record import SweepRecord, SweptPoint, short
from flows.sweep.timing import SweepTimes, sweep_times

CSV, PAGE = "pareto.csv", "sweep.html"


class SweepReport(NamedTuple):
    """Everything there is to say about a sweep."""

    findings: Findings
    times: SweepTimes
    csv: str
    page: str
    figures: dict[str, bytes]
    """File name -> PNG."""
    markdown: str


def build_report(sweep: SweepRecord, points: Sequence[SweptPoint]) -> SweepReport:
    """Weigh the points and draw the report."""
    findings = weigh(points, sweep.weighing)
    begun = [point for point in points if point.state != "waiting"]
    times = sweep_times(
        {point.number: point.spans for point in begun},
        {point.number: [stage.artifact for stage in point.stages] for point in begun},
        {point.number: (point.started, point.ended) for point in begun},
    )
    figures = _figures(sweep, points, findings)
    return SweepReport(
        findings=findings,
        times=times,
        csv=_csv(sweep, points, findings),
        page=_page(sweep, points, findings, times, figures),
        figures={f"{name}.png": plots.png(figure) for name, (_, figure) in figures.items()},
        markdown=_markdown(sweep, points, findings, times),
    )


def write_report(report: SweepReport, folder: Path) -> list[Path]:
    """Write every file of the report; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CSV).write_text(report.csv, encoding="utf-8")
    (folder / PAGE).write_text(report.page, encoding="utf-8")
    for name, data in report.figures.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in (CSV, PAGE, *report.figures)]


def time_lines(times: SweepTimes) -> list[str]:
    """Where the time went, in words."""
    mean = sum(times.points.values()) / len(times.points) if times.points else 0.0
    return [
        f"{times.wall:.1f} s from the first point's start to the last one's end",
        f"trunk: {times.trunk:.1f} s of work on stages that several points share, each run once",
        f"points: {mean:.1f} s of work each on what only one point uses "
        f"({min(times.points.values()):.1f} to {max(times.points.values()):.1f})",
        f"orchestration: {times.orchestration:.1f} s in which no stage was at work, {times.per_stage:.2f} s for each of "
        f"{times.stages} stages run or found, {100 * times.share:.1f} % of the whole",
    ]


def _figures(sweep: SweepRecord, points: Sequence[SweptPoint], findings: Findings) -> dict[str, tuple[str, Figure]]:
    """File stem -> caption and figure."""
    figures: dict[str, tuple[str, Figure]] = {}
    scattered = plots.tradeoff(points, findings, sweep.weighing)
    if scattered is not None:
        figures["tradeoff"] = (
            "Filled: on the Pareto front. Hollow: dominated. Star: the best point within the constraint (dashed line). "
            "Vertical bars: interval of the win rate.",
            scattered,
        )
    maps = plots.heat_maps(points, findings, sweep.weighing)
    for (across, down), figure in maps.items():
        others = [knob for knob in sweep.knobs if knob not in (across, down)]
        mean = f" Means over {', '.join(others)}." if others else ""
        figures[f"heat_{_stem(across)}_{_stem(down)}"] = (f"Dark is good.{mean} A dash: no finished point.", figure)
    if not maps:
        for knob, figure in plots.lines(points, findings, sweep.weighing).items():
            figures[f"line_{_stem(knob)}"] = ("One mark a point.", figure)
    return figures


def _stem(knob: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in knob)


def _csv(sweep: SweepRecord, points: Sequence[SweptPoint], findings: Findings) -> str:
    target = io.StringIO()
    names = ["win_rate", "score", "kl", "regression"]
    head = ["point", "state", *sweep.knobs, "judge", *names, "front", "dominated_by", "within_constraint", "best"]
    rows = csv.writer(target, lineterminator="\n")
    rows.writerow([*head, "seconds", "stages_ran", "stages_found", "run_id", "error"])
    for point in points:
        found = findings.values.get(point.number, {})
        finished = point.state == "finished"
        rows.writerow(
            [
                point.number,
                point.state,
                *(point.values.get(knob, "") for knob in sweep.knobs),
                findings.judge or "",
                *(found.get(name, "") for name in names),
                _yes(point.number in findings.front) if finished else "",
                " ".join(str(number) for number in findings.dominated.get(point.number, [])),
                _yes(permitted(found, sweep.weighing)) if finished else "",
                _yes(point.number == findings.best) if finished else "",
                f"{point.seconds:.1f}" if point.state != "waiting" else "",
                len(point.ran) if finished else "",
                len(point.stages) - len(point.ran) if finished else "",
                point.run_id,
                point.error,
            ]
        )
    return target.getvalue()


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _standing(point: SweptPoint, findings: Findings) -> str:
    if point.state != "finished":
        return point.state
    if findings.judge is None:
        return "not compared"
    better = findings.dominated[point.number]
    standing = f"dominated by {', '.join(f'#{number}' for number in better)}" if better else "front"
    return f"best, {standing}" if point.number == findings.best else standing


def _rows(
    sweep: SweepRecord, points: Sequence[SweptPoint], findings: Findings
) -> tuple[list[str], list[dict[str, Any]]]:
    """Headings and rows of the table of points, as text."""
    judge = findings.judge or sweep.weighing.judges[0]
    names = [
        name
        for name in ("win_rate", "score", "kl", "regression")
        if any(name in found for found in findings.values.values())
    ]
    headings = ["#", *sweep.knobs, "standing"]
    headings += [TITLES[name] + (f", {judge_title(judge)}" if name in MAXIMISED else "") for name in names]
    prompted = f"policy/win_rate_of_prompted_{judge}"
    with_prompted = any(prompted in point.metrics for point in points)
    headings += [f"{TITLES['win_rate']} of the prompted base"] * with_prompted
    headings += ["seconds", "stages run"]
    rows = []
    for point in points:
        found = measured(point.metrics, judge, sweep.weighing)
        low, high = (point.metrics.get(f"policy/win_rate_{judge}_{end}") for end in ("low", "high"))
        cells = [(str(point.number), ""), *((short(point.values.get(knob, "")), "") for knob in sweep.knobs)]
        cells.append((_standing(point, findings), ""))
        for name in names:
            interval = (
                f"[{100 * low:.1f}, {100 * high:.1f}]"
                if name == "win_rate" and low is not None and high is not None
                else ""
            )
            cells.append((shown(name, found[name]), interval) if name in found else ("", ""))
        if with_prompted:
            cells.append((shown("win_rate", point.metrics[prompted]) if prompted in point.metrics else "", ""))
        cells.append((f"{point.seconds:.0f}" if point.state != "waiting" else "", ""))
        cells.append((f"{len(point.ran)} of {len(point.stages)}" if point.stages else "", ""))
        kind = "best" if point.number == findings.best else "front" if point.number in findings.front else "rest"
        rows.append({"cells": cells, "kind": kind if point.state == "finished" else "unfinished"})
    return headings, rows


def _page(
    sweep: SweepRecord,
    points: Sequence[SweptPoint],
    findings: Findings,
    times: SweepTimes,
    figures: dict[str, tuple[str, Figure]],
) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    headings, rows = _rows(sweep, points, findings)
    return environment.get_template("sweep.html.jinja").render(
        title=f"Plumbline: {sweep.name}",
        sweep=sweep,
        finished=sum(point.state == "finished" for point in points),
        total=max(sweep.expected, len(points)),
        findings=findings,
        against=BASELINES[sweep.weighing.regression_against],
        compared=", ".join(TITLES[name] for name in findings.objectives),
        failed=[point for point in points if point.state in ("failed", "interrupted")],
        headings=headings,
        rows=rows,
        figures=[(caption, _data_uri(plots.svg(figure))) for caption, figure in figures.values()],
        times=time_lines(times) if times.stages else [],
        runs=[(point.label, point.run_id) for point in points if point.run_id],
    )


def _data_uri(text: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


def _markdown(sweep: SweepRecord, points: Sequence[SweptPoint], findings: Findings, times: SweepTimes) -> str:
    headings, rows = _rows(sweep, points, findings)
    lines = [f"**{findings.verdict}**", *(f"- {note}" for note in findings.notes), ""]
    lines += ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    for row in rows:
        lines.append("| " + " | ".join(_plain(" ".join(part for part in cell if part)) for cell in row["cells"]) + " |")
    failed = [
        f"- {point.label}: {_plain(point.error or 'interrupted')}"
        for point in points
        if point.state in ("failed", "interrupted")
    ]
    if failed:
        lines += ["", "Not finished:", *failed]
    if times.stages:
        lines += ["", *(f"- {line}" for line in time_lines(times))]
    return "\n".join(lines)


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
