"""Points side by side, in processes that live as long as the study: starting one costs as much as a small stage.

A point that raises is recorded as failed, and so is one whose process dies; the others go on.
"""

import logging
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import NamedTuple

from flows.config import RLHFConfig
from flows.process.deadline import GRACE_SECONDS
from flows.process.logs import tame_logs
from flows.process.runners import prepare_worker
from flows.study.points import Point, next_point
from flows.study.records import PointRecord
from tasks.engine.errors import PlumblineError

GOODBYE_SECONDS = 30.0


class Job(NamedTuple):
    """What a worker is handed."""

    point: Point
    config: RLHFConfig
    fingerprint: str
    study_run: str
    number: int
    """Place among the study's points."""


Work = Callable[[Point, RLHFConfig, str, str, int], PointRecord]


class _Worker(NamedTuple):
    process: SpawnProcess
    line: "Connection[Job | None, PointRecord]"


def run_jobs(
    jobs: Sequence[Job], work: Work, workers: int, begun: set[int], on_done: Callable[[PointRecord], None]
) -> None:
    """Run every job, at most ``workers`` at a time, and hand each record to ``on_done`` as it comes.

    Args:
        jobs: in order; one that shares its seed with the first running point of that seed waits until that has ended.
        work: importable, because it is called in other processes.
        workers: processes.
        begun: seeds that need not be waited for; grows.
        on_done: called in this process.
    """
    pending = {job.point: job for job in jobs}
    idle: list[_Worker] = []
    busy: dict[Connection[Job | None, PointRecord], tuple[_Worker, Job, float]] = {}
    try:
        while pending or busy:
            while len(busy) < workers:
                point = next_point(list(pending), [job.point for _, job, _ in busy.values()], begun)
                if point is None:
                    break
                job = pending.pop(point)
                worker = _ready(idle, work)
                worker.line.send(job)
                busy[worker.line] = (worker, job, time.monotonic())
            for line in wait(list(busy)):
                worker, job, started = busy.pop(line)  # type: ignore[call-overload]
                try:
                    record = worker.line.recv()
                    idle.append(worker)
                except (EOFError, OSError):  # closed, or reset by a process that died before it read its job
                    worker.process.join(GOODBYE_SECONDS)
                    error = f"its process ended with status {worker.process.exitcode} before it could say why"
                    record = failed(job, error, time.monotonic() - started)
                begun.add(job.point.seed)
                on_done(record)
    except BaseException:
        for worker, _, _ in busy.values():
            worker.process.terminate()  # its stage saves the step that it is at
        try:
            for worker, job, _ in busy.values():
                seconds = job.config.runtime.stop_seconds
                worker.process.join(None if seconds is None else seconds + GRACE_SECONDS)
        finally:  # a second Ctrl-C ends the waiting
            for worker, _, _ in busy.values():
                worker.process.kill()
        raise
    finally:
        for worker in idle:
            _dismiss(worker)


def failed(job: Job, error: str, seconds: float) -> PointRecord:
    """The record of a point without numbers."""
    return PointRecord(point=job.point, fingerprint=job.fingerprint, error=error, seconds=seconds)


def _start(work: Work) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, work), daemon=False)
    process.start()
    there.close()  # so that the end of the process is the end of the line
    return _Worker(process, here)


def _ready(idle: list[_Worker], work: Work) -> _Worker:
    """A worker that waits, or a new one; one that died while it waited is forgotten."""
    while idle:
        worker = idle.pop()
        if worker.process.is_alive():
            return worker
    return _start(work)


def _dismiss(worker: _Worker) -> None:
    try:
        worker.line.send(None)
        worker.process.join(GOODBYE_SECONDS)
    except OSError:
        pass
    if worker.process.is_alive():
        worker.process.kill()


def _serve(line: "Connection[PointRecord, Job | None]", work: Work) -> None:
    """The life of one worker."""
    prepare_worker()
    signal.signal(signal.SIGTERM, _end_in_order)
    with suppress(KeyboardInterrupt):
        _work_off(line, work)


def _end_in_order(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a scheduler and the study may both say it
    raise KeyboardInterrupt


def _work_off(line: "Connection[PointRecord, Job | None]", work: Work) -> None:
    tame_logs()
    while (job := line.recv()) is not None:
        started = time.monotonic()
        try:
            record = work(*job)
        except Exception as error:
            if not isinstance(error, PlumblineError):
                logging.getLogger("plumbline").exception("%s failed", job.point.name)
            text = (str(error).splitlines() or [""])[0]
            record = failed(job, f"{type(error).__name__}: {text}", time.monotonic() - started)
        line.send(record)
