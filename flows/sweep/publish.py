"""A sweep's report, where people look for it: the sweep folder, MLflow, Prefect, the screen."""

from collections.abc import Sequence
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.sweep.record import SweepRecord, SweptPoint
from flows.sweep.report import CSV, PAGE, SweepReport, build_report, time_lines, write_report
from flows.terminal import console
from tasks.engine.tracking import open_run


def publish(folder: Path, sweep: SweepRecord, points: Sequence[SweptPoint]) -> SweepReport:
    """Write the report and say what is in it."""
    report = build_report(sweep, points)
    log = open_run(sweep.tracking_uri, sweep.run_id)
    for path in write_report(report, folder / "report"):
        log.file(path)
    log.metrics(_metrics(report, points))
    log.flush()
    log.tags({"plumbline.verdict": report.findings.verdict})
    sweep_report.with_options(flow_run_name=sweep.name)(report.markdown, report.findings.verdict)
    _say(folder / "report", report)
    return report


@flow(name="sweep report", log_prints=False)
def sweep_report(markdown: str, verdict: str) -> None:
    """The table of points on the Prefect page."""
    create_markdown_artifact(key="sweep", markdown=markdown, description=verdict)


def _metrics(report: SweepReport, points: Sequence[SweptPoint]) -> dict[str, float]:
    """The sweep in figures."""
    findings, times = report.findings, report.times
    best = findings.values.get(findings.best, {}) if findings.best is not None else {}
    return {
        "sweep/points": len(points),
        "sweep/finished": len(findings.values),
        "sweep/failed": sum(point.state == "failed" for point in points),
        "sweep/on_front": len(findings.front) if findings.judge else 0,
        "sweep/seconds": times.wall,
        "sweep/trunk_seconds": times.trunk,
        "sweep/orchestration_seconds": times.orchestration,
        **{f"sweep/best_{name}": value for name, value in best.items()},
    }


def _say(folder: Path, report: SweepReport) -> None:
    screen = console()
    screen.print()
    screen.print(report.findings.verdict, highlight=False)
    for note in report.findings.notes:
        screen.print(f"- {note}", highlight=False)
    if report.times.stages:
        for line in time_lines(report.times):
            screen.print(line, highlight=False, soft_wrap=True)
    screen.print(f"report   {folder / PAGE}", soft_wrap=True)
    screen.print(f"table    {folder / CSV}", soft_wrap=True)
    screen.print("pages    python -m flows.pages prefect     python -m flows.pages mlflow", soft_wrap=True)
