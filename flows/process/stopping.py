"""How the stages under way are ended, because one failed or the run was interrupted; every wait has a bound."""

import ctypes
import threading
import time
from collections.abc import Container
from contextlib import suppress
from pathlib import Path
from typing import Any

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from flows.process.deadline import CtrlC
from tasks.engine.checkpoint import latest_step
from tasks.engine.errors import WorkerKilled
from tasks.engine.progress import Progress, read_progress
from tasks.engine.stop import StopSign

THREAD_SECONDS = 4.0
NUDGE_SECONDS = 1.0
REPORT_SECONDS = 0.5
"""For a stage that has ended to tell Prefect so."""
UNKNOWN = 255
"""Exit status of a worker whose fork server could not tell it."""
LEAST_SECONDS = 15.0
"""Where the budget follows the steps, for stages that have made none yet."""
MARGIN = 1.5
"""How much longer than those before it a step may take."""


def budget(sign: StopSign, seconds: float | None) -> float:
    """How long stages that train are waited for: as given, or as long as the slowest step under way needs."""
    if seconds is not None:
        return seconds
    steps = [note.step_seconds or 0.0 for note in _running(sign) if note.checkpoints]
    return max([LEAST_SECONDS, *(MARGIN * step for step in steps)])


def stop(runner: TaskRunner[Any], sign: StopSign, seconds: float) -> list[str]:
    """End the stages that are under way.

    Stages that train are given ``seconds`` to finish their step and save; the others, and those whose step takes longer,
    are ended as they are and go on from their last checkpoint. Leaving a pool would wait for its tasks, which may train
    for hours. Ray and Dask end their workers by themselves when the runner is left.

    Returns:
        What is saved of every stage that was under way, one sentence each.
    """
    dead = _exit_codes(runner)
    with suppress(OSError):  # a full or read-only disk: then nothing can be saved either
        sign.ask()
        _wait_until_saved(sign, seconds, dead)
    under_way = [note for note in _running(sign) if note.process not in dead and not sign.has_saved(note.stage)]
    ended = [ended_as_it_is(note, seconds) for note in under_way]
    pool = getattr(runner, "_executor", None)
    if pool is not None and isinstance(runner, ProcessPoolTaskRunner):
        # Without a chance to object: Prefect's pool hangs for ever when a worker sends it a KeyboardInterrupt.
        for worker in list((pool._processes or {}).values()):
            worker.kill()
    elif pool is not None and isinstance(runner, ThreadPoolTaskRunner):
        pool.shutdown(wait=False, cancel_futures=True)
        _stop_threads(list(pool._threads))
        if any(thread.is_alive() for thread in pool._threads):
            runner._executor = None  # leaving the runner would wait for it; the command's end will not
    return [*sign.results(), *ended]


def ended_as_it_is(note: Progress, seconds: float) -> str:
    """What is left of a stage that was not waited for, or not long enough."""
    if not note.checkpoints:
        return f"{note.stage}: ended as it was; it saves nothing on its way and starts again"
    took = f"which takes {note.step_seconds:.0f} s" if note.step_seconds else "its first one here"
    return (
        f"{note.stage}: ended in step {note.done + 1} of {note.total}, {took} (runtime.stop_seconds: {seconds:g}); "
        f"{last_checkpoint(note)}"
    )


def last_checkpoint(note: Progress) -> str:
    """The checkpoint that a stage goes on from, in words."""
    step = latest_step(Path(note.checkpoints)) if note.checkpoints else None
    return "it has no checkpoint and starts again" if step is None else f"its last checkpoint is step {step}"


def worker_killed(runner: TaskRunner[Any], sign: StopSign) -> WorkerKilled:
    """Which worker of a pool was killed, by what, and what is left of its stage."""
    dead = _exit_codes(runner)
    code = next(iter(dead.values()), UNKNOWN)
    how = f"signal {-code}" if code < 0 else f"exit status {code}"
    if code in (-9, UNKNOWN):
        how = "signal 9; out of memory?" if code == -9 else "nobody knows how; out of memory?"
    running = _running(sign)
    of_the_dead = [note for note in running if note.process in dead] or running
    what = "; ".join(f"{note.stage}: {last_checkpoint(note)}" for note in of_the_dead) or "no stage was under way"
    during = ", ".join(note.stage for note in of_the_dead) or "its start"
    return WorkerKilled(f"a worker was killed ({how}) during {during}; {what}; the same command goes on from there")


def _exit_codes(runner: TaskRunner[Any]) -> dict[int, int]:
    """Of the workers of a pool that have ended."""
    pool = getattr(runner, "_executor", None)
    workers = getattr(pool, "_processes", None) or {}
    return {pid: worker.exitcode for pid, worker in workers.items() if worker.exitcode is not None}


def _running(sign: StopSign) -> list[Progress]:
    return [note for note in read_progress(sign.folder) if note.state == "running"]


def _wait_until_saved(sign: StopSign, seconds: float, dead: Container[int]) -> None:
    """Wait for the stages that train and can be done in time; a second Ctrl-C ends the waiting."""
    end = time.monotonic() + seconds
    try:
        while (left := end - time.monotonic()) > 0:
            training = [note for note in _running(sign) if sign.is_training(note.stage) and note.process not in dead]
            if not any(_ends_within(note, left) for note in training):
                break
            time.sleep(0.05)
        time.sleep(REPORT_SECONDS)
    except KeyboardInterrupt:
        return


def _ends_within(note: Progress, seconds: float) -> bool:
    """By what its last steps took; a stage that has made none, or is late, may end at any moment."""
    left = note.step_left(time.time())
    return left is None or left <= seconds


def _stop_threads(threads: list[threading.Thread]) -> None:
    """Interrupt the threads that run a task; again if it was lost where Python ignores exceptions.

    A thread that is interrupted while it starts another one may wait for it for ever, so that some stay.
    """
    end = time.monotonic() + THREAD_SECONDS
    patience = 0.2  # idle threads leave at once
    while time.monotonic() < end and any(thread.is_alive() for thread in threads):
        for thread in threads:
            thread.join(min(patience, max(0.0, end - time.monotonic())))
        for thread in threads:
            if thread.is_alive():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(CtrlC))
        patience = NUDGE_SECONDS
