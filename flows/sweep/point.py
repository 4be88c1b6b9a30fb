"""One point of a sweep, in whatever process Hydra's launcher chose for it."""

import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from flows.ask.preflight import TOLD, check
from flows.config import RLHFConfig, parse
from flows.process.session import drain, prefect_session
from flows.run.promotion import GateFailed
from flows.run.summary import Outcome
from flows.sweep.findings import TITLES, judge_of, measured
from flows.sweep.membership import as_point
from flows.sweep.record import SWEEP, SweepRecord, SweptPoint, point_file, waiting
from flows.sweep.timing import Span
from flows.tools.tracked import point_run, stage_work
from tasks.engine.errors import ConfigError, PlumblineError, TrackingAway
from tasks.engine.os_errors import readable_os_errors
from tasks.engine.parent import die_with_parent

TRACEBACK = "traceback.txt"


def run_point(values: DictConfig, flow: Callable[[RLHFConfig], Outcome]) -> list[float] | None:
    """Run the pipeline for one point and leave a record of it in the sweep's folder.

    Returns:
        ``sweep.returns`` of this point when a sweeper goes by them. None in a grid, and for a point that failed: a grid goes
        on with the others, a search counts a failed trial, and the sweep's report says why.
    """
    hydra = HydraConfig.get()
    folder = Path(str(hydra.sweep.dir)).absolute()
    sweep = SweepRecord.read(folder / SWEEP)
    if sweep is None:
        raise ConfigError(f"{folder / SWEEP} is missing: the sweep did not start; keep hydra/callbacks=sweep")
    if sweep.process != os.getpid():
        die_with_parent()  # a process of the launcher must not train on when the sweep was killed
    number = int(hydra.job.num)
    file = point_file(folder, number)
    point = waiting(number, list(hydra.overrides.task), sweep.knobs)
    point = point.model_copy(update={"state": "running", "started": time.time(), "ended": time.time()})
    point.write(file)
    try:
        config = parse(values)
        check(config, TOLD)
        config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"progress": False})})
        with (
            as_point(sweep.run_id, sweep.name, number, point.values),
            readable_os_errors(config.tracking.folder),
            prefect_session(),
        ):
            try:
                outcome, broken = flow(config), ""
            except GateFailed as failed:  # measured all the same; the sweep shows the mark
                outcome, broken = failed.outcome, str(failed)
        point = _finished(point, outcome, sweep).model_copy(update={"error": broken})
        returns = None if sweep.planned else _returns(point, config)  # a grid has no use for them
    except Exception as error:
        point = _failed(point, _sentence(error, Path(hydra.runtime.output_dir)), sweep)
        returns = None
    except BaseException:  # Ctrl-C, SIGTERM
        point.model_copy(update={"state": "interrupted", "ended": time.time()}).write(file)
        raise
    if sweep.process != os.getpid():
        drain()
    point.model_copy(update={"ended": time.time()}).write(file)
    return returns


def _finished(point: SweptPoint, outcome: Outcome, sweep: SweepRecord) -> SweptPoint:
    found = {"metrics": outcome.metrics, "stages": outcome.stages, "spans": _spans(outcome.run_id, sweep)}
    ended = {"state": "finished", "run_id": outcome.run_id, "version": outcome.version}
    return point.model_copy(update=ended | found)


def _failed(point: SweptPoint, error: str, sweep: SweepRecord) -> SweptPoint:
    try:
        run_id = point_run(sweep.tracking_uri, sweep.experiment_id, sweep.run_id, point.number)
        spans = _spans(run_id, sweep) if run_id else []
    except Exception:  # tracking may be what failed; the reason is worth more than the times
        run_id, spans = "", []
    return point.model_copy(update={"state": "failed", "error": error, "run_id": run_id, "spans": spans})


def _spans(run_id: str, sweep: SweepRecord) -> list[Span]:
    try:
        work = stage_work(sweep.tracking_uri, sweep.experiment_id, run_id)
    except TrackingAway:  # the table shows the point without its times
        return []
    return [Span(item.stage, item.artifact, item.began, item.began + item.seconds) for item in work]


def _returns(point: SweptPoint, config: RLHFConfig) -> list[float]:
    """What a search optimises.

    Raises:
        ConfigError: something in ``sweep.returns`` was not measured.
    """
    judge = judge_of([point.metrics], config.sweep)
    found = measured(point.metrics, judge or "", config.sweep)
    missing = [name for name in config.sweep.returns if name not in found]
    if missing:
        raise ConfigError(
            f"sweep.returns: {', '.join(TITLES[name] for name in missing)} was not measured; give benchmarks to "
            "data_prep, or return and optimise something else"
        )
    return [found[name] for name in config.sweep.returns]


def _sentence(error: Exception, folder: Path) -> str:
    """Why a point failed; what is no mistake of the user's keeps its traceback in a file."""
    if isinstance(error, PlumblineError):
        return str(error)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRACEBACK).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first} (traceback in {folder / TRACEBACK})"
