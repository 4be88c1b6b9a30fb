"""What the points of a sweep share: one Prefect server, one tracked run, one table, one report at the end."""

import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from flows.process.fork_server import warm_up
from flows.process.leftovers import PROCESS_TAG, close_tracked_runs, this_process
from flows.process.session import prefect_session
from flows.sweep.champion import promote_best
from flows.sweep.plan import SweepPlan, read_plan
from flows.sweep.record import POINTS, SWEEP, SweepRecord, SweptPoint, point_file, read_points
from flows.sweep.table import Watch
from tasks.engine.errors import ConfigError, PlumblineError
from tasks.engine.tracking import open_run, start_sweep_run


class Sweep(NamedTuple):
    """A sweep under way in this process."""

    plan: SweepPlan
    record: SweepRecord
    watch: Watch
    resources: ExitStack


_open: list[Sweep] = []


def start(values: DictConfig, config_name: str) -> None:
    """Check every point, then open what they share.

    Raises:
        PlumblineError: a point cannot be run, or tracking or the Prefect API does not answer.
    """
    plan = read_plan(values, config_name)
    tracking = plan.config.tracking
    with ExitStack() as stack:
        stack.enter_context(_alone_in(plan.folder))
        experiment_id = tracking.prepare()
        if plan.config.runtime.runner == "processes" and str(values.hydra.launcher._target_).endswith("BasicLauncher"):
            warm_up()  # while the server starts; other launchers run the points in processes of their own
        stack.enter_context(prefect_session())
        close_tracked_runs(tracking.uri, experiment_id)
        name = f"sweep of {' × '.join(plan.knobs) or 'one point'}, {time.strftime('%Y-%m-%d %H:%M:%S')}"
        command = shlex.join([sys.executable.rpartition("/")[2], "-m", "flows.rlhf", *sys.argv[1:]])
        swept = {knob: ",".join(dict.fromkeys(_choices(plan, knob))) for knob in plan.knobs} if plan.points else {}
        run_id = start_sweep_run(
            tracking.uri, experiment_id, name, swept, {PROCESS_TAG: this_process(), "plumbline.command": command}
        )
        record = SweepRecord(
            name=name,
            command=command,
            run_id=run_id,
            experiment_id=experiment_id,
            tracking_uri=tracking.uri,
            process=os.getpid(),
            started=time.time(),
            knobs=plan.knobs,
            planned=plan.points,
            expected=plan.expected,
            weighing=plan.config.sweep,
        )
        record.write(plan.folder / SWEEP)
        watch = Watch(plan.folder, record)
        watch.start()
        _open.append(Sweep(plan, record, watch, stack.pop_all()))


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """The folder is named after the second: two sweeps of the same one would mix their points.

    Raises:
        ConfigError: another sweep is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".sweep.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"{folder}: another sweep is at work in this folder; start this one again") from None
    try:
        shutil.rmtree(folder / POINTS, ignore_errors=True)  # of an earlier sweep, where hydra.sweep.dir was given
        yield
    finally:
        lock.release()


def _choices(plan: SweepPlan, knob: str) -> list[str]:
    return [value for point in plan.points for key, _, value in (item.partition("=") for item in point) if key == knob]


def finish(interrupted: bool = False) -> list[SweptPoint]:
    """Report on the sweep that is open, if one is, and close what its points shared; returns the points."""
    if not _open:
        return []
    from flows.sweep.publish import publish  # draws plots, which a sweep begins without

    sweep = _open.pop()
    folder, record = sweep.plan.folder, sweep.record
    with sweep.resources:
        points = read_points(folder, record)
        for point in points:
            if point.state == "running":  # its process was ended before it could say so
                point.model_copy(update={"state": "interrupted"}).write(point_file(folder, point.number))
        sweep.watch.stop()
        points = read_points(folder, record)
        if interrupted:
            close_tracked_runs(record.tracking_uri, record.experiment_id)
        findings = publish(folder, record, points).findings
        if not interrupted:
            promote_best(record, points, findings, sweep.plan.config.evaluation.gate)
        complete = not interrupted and all(point.state == "finished" for point in points)
        log = open_run(record.tracking_uri, record.run_id)
        log.finish("KILLED" if interrupted else "FINISHED" if complete else "FAILED")
        return points


@contextmanager
def reported_at_the_end() -> Iterator[None]:
    """Close the sweep that is started inside, however the inside ends; Hydra's own hook misses some ends.

    Raises:
        PlumblineError: points failed; the sentence says which and why.
    """
    try:
        yield
    except KeyboardInterrupt:
        finish(interrupted=True)
        raise
    except BaseException:
        finish()
        raise
    points = finish()
    failed = [point for point in points if point.state == "failed"]
    if failed:
        reasons = "; ".join(f"{point.label}: {' '.join(point.error.split())}" for point in failed)
        raise PlumblineError(
            f"{len(failed)} of {len(points)} points failed ({reasons}); the same command again runs only what is missing"
        )
