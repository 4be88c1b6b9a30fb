"""The study as a flow: run the points that are missing, write the page, put it where people look."""

import math
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from flows.process import environment  # noqa: F401  first: Prefect reads the environment when it is imported

from prefect import flow  # isort: skip
from omegaconf import DictConfig
from prefect.artifacts import create_markdown_artifact

from flows.ask.preflight import check
from flows.config import RLHFConfig, composed, parse
from flows.process.leftovers import PROCESS_TAG, claim_flow_run, release_flow_run, this_process
from flows.study.config import StudyConfig
from flows.study.measure import at_one_core, measure, place_of
from flows.study.page import HTML, MARKDOWN, Written, write_page
from flows.study.points import Point, points_of
from flows.study.records import PointRecord, RecordStore, Session, SessionLog, fingerprint_of, missing_points
from flows.study.results import Results
from flows.study.workers import Job, run_jobs
from tasks.engine.tracking import open_run, prepare, start_study_run


class StudyPlan(NamedTuple):
    """Every point with its validated pipeline, and where the study lies."""

    configs: dict[Point, RLHFConfig]
    fingerprints: dict[Point, str]
    tracking: RLHFConfig
    """Any of the pipelines, for its tracking."""

    @property
    def folder(self) -> Path:
        """Of the records of all studies."""
        return place_of(self.tracking)


class StudyOutcome(NamedTuple):
    """What a study leaves behind."""

    page: Path
    findings: dict[str, str]
    """Key -> status."""
    failed: list[PointRecord]
    run_id: str
    """MLflow run of the study."""


def plan_of(config: StudyConfig) -> StudyPlan:
    """Compose and check every pipeline before any of them runs.

    Raises:
        ConfigError: an override that does not apply, or an invalid configuration.
    """
    return _plan(config.model_dump_json())


@cache
def _plan(config_text: str) -> StudyPlan:
    """Composing takes long, and both the command line and the flow ask."""
    config = StudyConfig.model_validate_json(config_text)
    configs = {point: at_one_core(point, found, config.experiment) for point, found in pipelines(points_of(config))}
    first = next(iter(configs.values()))
    check(first)
    return StudyPlan(configs, {point: fingerprint_of(point, pipeline) for point, pipeline in configs.items()}, first)


def pipelines(points: Sequence[Point]) -> Iterator[tuple[Point, RLHFConfig]]:
    """The validated pipeline of every point; each setting is composed once, because the seed is a value like any other.

    Raises:
        ConfigError: an override that does not apply, or an invalid configuration.
    """
    values: dict[str, DictConfig] = {}
    for point in points:
        if point.setting not in values:
            values[point.setting] = composed(list(point.overrides))
        values[point.setting].seed = point.seed
        yield point, parse(values[point.setting])


@flow(name="study", flow_run_name="{config.name}")
def study(config: StudyConfig, command: str) -> StudyOutcome:
    """Run what is missing and write the page, also when a point fails or the study is interrupted.

    Args:
        config: the study, validated.
        command: how it was called, for the page.

    Raises:
        PlumblineError: a configuration, or a place to write to, that cannot work. A point that fails is reported instead.
    """
    plan = plan_of(config)
    claim_flow_run()
    tracking = plan.tracking.tracking
    experiment_id = prepare(tracking.uri, config.experiment, tracking.folder / "mlflow")
    folder = plan.folder / config.name
    run_id = start_study_run(
        tracking.uri,
        experiment_id,
        f"study {config.name}",
        config.model_dump(mode="json"),
        {PROCESS_TAG: this_process()},
        folder / "mlflow_run",
    )
    store = RecordStore(plan.folder)
    ended = "KILLED"
    try:
        if not config.only_page:
            _run_missing(config, plan, store, SessionLog(folder), run_id)
        ended = "FINISHED"
    except Exception:
        ended = "FAILED"
        raise
    finally:
        records = store.read_all(plan.fingerprints)
        written = _write(config, plan, records, SessionLog(folder), command)
        _publish(written, tracking.uri, run_id, ended)
        release_flow_run()
    create_markdown_artifact(key="study", markdown=(folder / MARKDOWN).read_text(encoding="utf-8"))
    return StudyOutcome(
        page=folder / HTML,
        findings={finding.key: finding.status for finding in written.findings},
        failed=[record for record in records.values() if record.error is not None],
        run_id=run_id,
    )


def _run_missing(config: StudyConfig, plan: StudyPlan, store: RecordStore, log: SessionLog, run_id: str) -> None:
    """Run the points without numbers, and say of each how it went."""
    points = list(plan.configs)
    known = store.read_all(plan.fingerprints)
    todo = missing_points(points, known)
    _say(
        f"{len(points)} points, {len(points) - len(todo)} measured already, {len(todo)} to run with {config.workers} workers"
    )
    if not todo:
        return
    started = time.monotonic()
    done: list[str] = []

    def keep(record: PointRecord) -> None:
        store.write(record)
        done.append(record.fingerprint)
        ending = (
            f"{record.seconds:.0f} s"
            if record.error is None
            else f"FAILED after {record.seconds:.0f} s: {record.error}"
        )
        _say(f"[{len(done)}/{len(todo)}] {record.point.name}: {ending}")

    jobs = [Job(point, plan.configs[point], plan.fingerprints[point], run_id, points.index(point)) for point in todo]
    begun = {point.seed for point, record in known.items() if record.error is None}
    try:
        run_jobs(jobs, measure, config.workers, begun, keep)
    finally:
        log.add(Session(seconds=time.monotonic() - started, fingerprints=done, workers=config.workers))


def _say(text: str) -> None:
    print(text, flush=True)


def _write(
    config: StudyConfig, plan: StudyPlan, records: Mapping[Point, PointRecord], log: SessionLog, command: str
) -> Written:
    points = list(plan.configs)
    results, found = Results(config, points, records), list(records.values())
    return write_page(plan.folder / config.name, results, points, found, log.of(found), command)


def _publish(written: Written, uri: str, run_id: str, status: str) -> None:
    """Page, figures, verdicts and claims to the study's MLflow run."""
    log = open_run(uri, run_id)
    step = int(time.time())  # a study that is called again adds to the same run
    for path in written.files:
        log.file(path, "figures" if path.suffix == ".svg" else None)
    for finding in written.findings:
        log.tags({f"finding.{finding.key}": finding.status})
        for number, item in enumerate(finding.judged, start=1):
            if item.interval is not None:
                parts = {"": item.interval.estimate, "_low": item.interval.low, "_high": item.interval.high}
                values = {f"{finding.key}/{number}{end}": value for end, value in parts.items()}
                log.metrics({name: value for name, value in values.items() if math.isfinite(value)}, step)
    log.finish(status)


def command_line(arguments: Sequence[str]) -> str:
    """The command that makes the page's numbers, whether it was called for the page alone or not."""
    kept = [argument for argument in arguments if not argument.startswith("only_page=")]
    return shlex.join(["python", "-m", "flows.study", *kept])


def say_goodbye(outcome: StudyOutcome) -> int:
    """Print verdicts and places; returns the exit status, 1 when a point has failed."""
    width = max(map(len, outcome.findings), default=0)
    for key, status in outcome.findings.items():
        print(f"{key.ljust(width)}  {status}")
    print(f"page     {outcome.page}")
    for record in outcome.failed:
        print(f"failed   {record.point.name}: {record.error}", file=sys.stderr)
    if outcome.failed:
        print(f"error: {len(outcome.failed)} points failed; the same command runs them again", file=sys.stderr)
    return 1 if outcome.failed else 0
