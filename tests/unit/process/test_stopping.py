"""What is waited for, for how long, and what is said of each stage; pools are real, stages are notes."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.task_runners import ThreadPoolTaskRunner

from flows.process import stopping
from flows.process.environment import PROJECT
from flows.process.runners import WarmProcessPool
from flows.process.stopping import budget, stop, worker_killed
from tasks.engine.checkpoint import save_checkpoint
from tasks.engine.progress import Reporter
from tasks.engine.stop import StopSign

NO_POOL = SimpleNamespace(_executor=None)


@pytest.fixture
def sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StopSign:
    monkeypatch.setattr(stopping, "REPORT_SECONDS", 0.0)
    sign = StopSign(tmp_path, "run")
    sign.ask()
    return sign


def training(sign: StopSign, stage: str, step_seconds: float | None, since: float = 0.0) -> Reporter:
    """A stage in its 31st step of 100, with a checkpoint of step 30."""
    folder = Path(sign.folder or "") / "checkpoints" / stage
    sign.begin_training(stage)
    report = Reporter(sign.folder, stage)
    report.count(100, "step", 30, folder)
    report._now = report._now._replace(step_seconds=step_seconds, step_began=time.time() - since)
    report._write()
    save_checkpoint(folder, 30, {})
    return report


def test_a_step_that_cannot_end_in_time_is_not_waited_for_and_what_is_saved_is_said(sign: StopSign) -> None:
    training(sign, "ppo_ptx", step_seconds=60, since=10)
    began = time.monotonic()
    words = stop(NO_POOL, sign, seconds=15)
    assert time.monotonic() - began < 10
    assert words == [
        "ppo_ptx: ended in step 31 of 100, which takes 60 s (runtime.stop_seconds: 15); its last checkpoint is step 30"
    ]


@pytest.mark.parametrize(("step_seconds", "since"), [(60, 59.9), (None, 0), (60, 300)])
def test_a_step_that_may_end_in_time_is_waited_for(sign: StopSign, step_seconds: float | None, since: float) -> None:
    report = training(sign, "ppo_ptx", step_seconds, since)

    def save() -> None:
        sign.saved("ppo_ptx", "ppo_ptx: stopped at step 31 of 100, as it was told to; its state is saved")
        report.end("ended")
        sign.end_training("ppo_ptx")

    timer = threading.Timer(0.4, save)
    timer.start()
    assert stop(NO_POOL, sign, seconds=20) == [
        "ppo_ptx: stopped at step 31 of 100, as it was told to; its state is saved"
    ]


def test_waiting_has_an_end_and_stages_that_save_nothing_are_named(sign: StopSign) -> None:
    training(sign, "sft", step_seconds=None)
    (Path(sign.folder or "") / "checkpoints" / "sft" / "step-00000030.pt").unlink()
    Reporter(sign.folder, "evaluation-base").count(7, "part")
    Reporter(sign.folder, "data_prep").end("made")
    began = time.monotonic()
    words = stop(NO_POOL, sign, seconds=0.5)
    assert 0.4 < time.monotonic() - began < 3
    assert words == [
        "sft: ended in step 31 of 100, its first one here (runtime.stop_seconds: 0.5); it has no checkpoint and starts again",
        "evaluation-base: ended as it was; it saves nothing on its way and starts again",
    ]


def test_the_budget_follows_the_slowest_step_where_none_is_given(sign: StopSign) -> None:
    assert budget(sign, 7.0) == 7.0
    assert budget(sign, None) == 15.0
    training(sign, "sft", step_seconds=2)
    training(sign, "ppo_ptx", step_seconds=60)
    assert budget(sign, None) == 90.0
    assert budget(sign, 7.0) == 7.0


def stubborn(release: threading.Event) -> None:
    """Hears nothing, as a thread that waits for another one that will never tell it."""
    while not release.is_set():
        try:
            release.wait()
        except KeyboardInterrupt:
            continue


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_thread_that_never_ends_is_left_behind(
    sign: StopSign, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "THREAD_SECONDS", 0.5)
    runner = ThreadPoolTaskRunner(max_workers=1)
    with runner:
        assert isinstance(runner._executor, ThreadPoolExecutor)
        runner._executor.submit(stubborn, release)
        time.sleep(0.1)
        began = time.monotonic()
        stop(runner, sign, seconds=0)
    assert time.monotonic() - began < 30  # leaving the runner waits for nothing


KEPT = """
import sys, threading, time
from flows.process import deadline
from flows.process.deadline import ends_in_time
deadline.GRACE_SECONDS = 1.0
threading.Thread(target=threading.Event().wait).start()
try:
    with ends_in_time():
        print("ready", flush=True)
        time.sleep(600)
except KeyboardInterrupt:
    print("in order, if nothing waited")
    sys.exit(130)
"""


def test_a_command_with_such_a_thread_ends_all_the_same() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KEPT], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.5)  # a signal between Python's last look and the system call of a sleep waits for the sleep's end
    process.terminate()
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and output == "in order, if nothing waited\n"
    assert errors.startswith("\nnot ended in order within 1 s, so ended as it is") and errors.count("\n") == 2


def test_it_ends_where_nobody_reads_what_it_writes_any_more() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KEPT], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n" and process.stderr is not None
        process.stderr.close()
        time.sleep(0.5)
        process.terminate()
        try:
            assert process.wait(60) == 130
        finally:
            process.kill()


def test_the_status_is_130_even_where_text_is_executed_when_it_is_interrupted(tmp_path: Path) -> None:
    program = f"""
import sys, time
from pathlib import Path
from prefect.task_runners import ThreadPoolTaskRunner
from flows.process import deadline
from flows.process.deadline import ends_in_time
from flows.process.stopping import stop
from tasks.engine.stop import StopSign
deadline.GRACE_SECONDS = 300.0
text = "while True: time.sleep(0.01)"  # as a dataclass is made, in a stage's thread as in the command's own
try:
    with ends_in_time(), ThreadPoolTaskRunner(max_workers=1) as runner:
        runner._executor.submit(exec, text, {{"time": time}})
        print("ready", flush=True)
        try:
            exec(text)
        finally:
            stop(runner, StopSign(Path({str(tmp_path)!r}), "run"), seconds=0)
except KeyboardInterrupt:
    sys.exit(130)
"""
    (tmp_path / "command.py").write_text(program)
    command = [sys.executable, "-m", "command"]  # by other ways of starting it Python keeps the status
    found = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"}
    with subprocess.Popen(command, env=found, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.terminate()
        assert process.wait(120) == 130  # in order, before the grace ends


def ends_itself() -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (-9, "signal 9; out of memory?"),
        (-11, "signal 11"),
        (3, "exit status 3"),
        (255, "nobody knows how; out of memory?"),
    ],
)
def test_a_killed_worker_is_named_with_its_stage_and_its_checkpoint(sign: StopSign, code: int, how: str) -> None:
    report = training(sign, "ppo_ptx", step_seconds=1)
    report._now = report._now._replace(process=77)
    report._write()
    training(sign, "sft", step_seconds=1)
    pool = SimpleNamespace(_processes={77: SimpleNamespace(exitcode=code), 78: SimpleNamespace(exitcode=None)})
    assert str(worker_killed(SimpleNamespace(_executor=pool), sign)) == (
        f"a worker was killed ({how}) during ppo_ptx; ppo_ptx: its last checkpoint is step 30; "
        "the same command goes on from there"
    )


@pytest.mark.slow
def test_a_real_worker_s_signal_is_known(sign: StopSign) -> None:
    from concurrent.futures.process import BrokenProcessPool

    training(sign, "ppo_ptx", step_seconds=1)
    with WarmProcessPool(max_workers=1) as runner:
        assert runner._executor is not None
        with pytest.raises(BrokenProcessPool):
            runner._executor.submit(ends_itself).result(60)
        assert "a worker was killed (signal 9; out of memory?) during ppo_ptx" in str(worker_killed(runner, sign))
