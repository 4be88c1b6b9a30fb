"""Harm done to a real run from outside, and what its user reads; every one of them ends, and leaves no process behind."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.processes import hears_ctrl_c
from tests.integration.test_runners import descendants, environment, is_alive, wait_until_dead

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "flows.rlhf", "scale=miniature", "runtime.progress=false"]
LONG = "ppo.episodes=64000"
STOP_SECONDS = 15  # runtime.stop_seconds of this configuration
HOWS = ["signal 9", "nobody knows how"]  # the fork server cannot always tell
BOUND = STOP_SECONDS + 15


class Run:
    """A run under way, with all it prints in one file."""

    def __init__(self, home: Path, *overrides: str) -> None:
        self.home, self.file = home, home / "output.txt"
        with self.file.open("w") as stream:
            self.process = subprocess.Popen(
                [*COMMAND, *overrides],
                env=environment(home),
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=hears_ctrl_c,
            )

    @property
    def output(self) -> str:
        return self.file.read_text()

    def wait(self, what: str, there: Callable[[], object], seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while not there():
            assert self.process.poll() is None and time.monotonic() < end, f"{what} never came\n{self.output}"
            time.sleep(0.02)

    def in_ppo(self) -> bool:
        return any(self.home.glob("artifacts/checkpoints/ppo_ptx/*/step-*.pt"))

    def server(self) -> int:
        """The process of the run's own Prefect server."""
        lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(self.process.pid)}
        [found] = [pid for pid, line in lines.items() if b"flows.process.server" in line]
        return found

    def ended(self, family: set[int]) -> int:
        """Its exit status; it and all its processes must have ended within the bound."""
        began = time.monotonic()
        status = self.process.wait(BOUND)
        left = wait_until_dead(family, 30 - min(29, time.monotonic() - began))
        assert left == [], left
        assert "Traceback" not in self.output and "resource_tracker" not in self.output, self.output
        return status


@contextmanager
def run(home: Path, *overrides: str) -> Iterator[Run]:
    started = Run(home, *overrides)
    try:
        yield started
    finally:
        for pid in filter(is_alive, descendants(started.process.pid)):
            os.kill(pid, signal.SIGKILL)


def test_a_killed_worker_is_one_sentence_and_the_run_goes_on(tmp_path: Path) -> None:
    pool = ["runtime.runner=processes", "ppo.episodes=6400"]
    with run(tmp_path, *pool) as started:
        started.wait("PPO's checkpoint", started.in_ppo)
        [note] = tmp_path.glob("artifacts/runs/*/at-ppo_ptx")
        family = descendants(started.process.pid)
        os.kill(json.loads(note.read_text())["process"], signal.SIGKILL)
        assert started.ended(family) == 1
        [sentence] = [line for line in started.output.splitlines() if line.startswith("error: ")]
    [folder] = tmp_path.glob("artifacts/checkpoints/ppo_ptx/*")
    step = max(int(path.name[5:13]) for path in folder.glob("step-*.pt"))
    what = f"ppo_ptx: its last checkpoint is step {step}; the same command goes on from there"
    known = [f"error: a worker was killed ({how}; out of memory?) during ppo_ptx; {what}" for how in HOWS]
    assert sentence in known
    with run(tmp_path, *pool) as again:
        assert again.process.wait(300) == 0, again.output


def test_a_killed_prefect_server_is_started_again_and_the_run_completes(tmp_path: Path) -> None:
    with run(tmp_path, "ppo.episodes=6400") as started:
        started.wait("PPO's checkpoint", started.in_ppo)
        family = descendants(started.process.pid)
        os.kill(started.server(), signal.SIGKILL)
        assert started.process.wait(300) == 0, started.output
        assert "the run's own Prefect server was killed (signal 9); it is started again" in started.output
        assert "Traceback" not in started.output
        assert wait_until_dead(family) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_without_its_prefect_server_hears_ctrl_c(tmp_path: Path, how: signal.Signals) -> None:
    with run(tmp_path, LONG) as started:
        started.wait("PPO's checkpoint", started.in_ppo)
        family = descendants(started.process.pid)
        os.kill(started.server(), signal.SIGKILL)
        os.kill(started.process.pid, how)
        assert started.ended(family) == 130
        assert "ppo_ptx: stopped at step" in started.output


def test_what_slow_steps_lose_is_said(tmp_path: Path) -> None:
    slow = ["ppo.episodes=1310720", "ppo.episodes_per_iteration=65536", "ppo.minibatch_size=64"]
    with run(tmp_path, *slow) as started:
        started.wait("PPO", lambda: any(tmp_path.glob("artifacts/runs/*/training-ppo_ptx")))
        time.sleep(2)
        family = descendants(started.process.pid)
        started.process.terminate()
        assert started.ended(family) == 130
        assert "ppo_ptx: ended in step 1 of 20, its first one here" in started.output
        assert "it has no checkpoint and starts again" in started.output


def test_threads_end_at_any_moment(tmp_path: Path) -> None:
    draw = random.Random(20261129)
    for number in range(10):
        with run(tmp_path, "runtime.runner=threads", "runtime.max_workers=1", f"seed={number}") as started:
            first = started.process.pid
            started.wait("the first stage", lambda: "started" in started.output)
            time.sleep(draw.uniform(0, 5))
            if started.process.poll() is not None:
                continue
            family = descendants(first)
            started.process.terminate()
            assert started.ended(family) == 130, f"{number}: {started.output}"
