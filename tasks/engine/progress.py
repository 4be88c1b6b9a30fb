"""How far each stage of a run is: small notes in the run's folder, which the run's own process reads and draws.

Like the sign to stop, a file reaches from any thread, process or machine that shares the store.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

AT = "at-"
PATIENCE = 0.2
"""Seconds between two writings of one note."""
SHOWN = {"objective/score": "reward", "objective/kl": "KL", "train/loss": "loss"}
"""Metrics that stand beside a stage's progress."""


class Progress(NamedTuple):
    """Where one stage is."""

    stage: str
    process: int
    """Its number."""
    state: str
    """``running``, ``made``, ``found`` in the store, or ``ended`` without a result."""
    began: float
    """Seconds since 1970, as are all clocks here."""
    ended: float | None
    unit: str
    """Empty as long as there is nothing to count."""
    done: int
    total: int
    step_began: float
    step_seconds: float | None
    """What the last steps took; None before the first one."""
    checkpoints: str
    """Folder of its checkpoints; empty when the stage saves nothing on its way."""
    metrics: str
    """The metrics worth showing, in words."""

    def step_left(self, now: float) -> float | None:
        """Seconds until the step under way ends, by what the last ones took; None before the first one."""
        return None if self.step_seconds is None else max(0.0, self.step_began + self.step_seconds - now)

    def left(self, now: float) -> float | None:
        """Seconds until the last step ends."""
        first = self.step_left(now)
        return None if first is None else first + max(0, self.total - self.done - 1) * (self.step_seconds or 0.0)


class Reporter:
    """Keeps the note of one stage.

    Args:
        folder: the run's; None for a stage that belongs to no run, which tells nobody.
        stage: whose.
    """

    def __init__(self, folder: Path | None, stage: str) -> None:
        now = time.time()
        self._folder = folder
        self._now = Progress(stage, os.getpid(), "running", now, None, "", 0, 0, now, None, "", "")
        self._written = 0.0
        self._write()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with suppress(OSError):  # a full disk may be why it ended
                self.end("ended")

    def count(self, total: int, unit: str, done: int = 0, checkpoints: Path | str = "") -> None:
        """Say what is counted from now on; ``done`` of it were done earlier."""
        self._now = self._now._replace(total=total, unit=unit, done=done, checkpoints=str(checkpoints))
        self._now = self._now._replace(step_began=time.time(), step_seconds=None)
        self._write()

    def at(self, done: int, metrics: Mapping[str, float] | None = None) -> None:
        """Say that so many are done."""
        before, now = self._now, time.time()
        seconds = before.step_seconds
        if done == before.done + 1:
            latest = now - before.step_began
            seconds = latest if seconds is None else 0.5 * (seconds + latest)
        words = ", ".join(f"{name} {(metrics or {})[key]:.3g}" for key, name in SHOWN.items() if key in (metrics or {}))
        self._now = before._replace(done=done, step_began=now, step_seconds=seconds, metrics=words or before.metrics)
        if now - self._written >= PATIENCE or done == before.total:
            self._write()

    def update(self, more: int = 1) -> None:
        """Say that more are done."""
        self.at(self._now.done + more)

    def end(self, state: str) -> None:
        """Say how it ended."""
        self._now = self._now._replace(state=state, ended=time.time())
        self._write()

    def _write(self) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / f".{AT}{self._now.stage}-{os.getpid()}"
        draft.write_text(json.dumps(self._now._asdict()), encoding="utf-8")
        draft.replace(self._folder / f"{AT}{self._now.stage}")
        self._written = time.time()


def read_progress(folder: Path | None) -> list[Progress]:
    """Every note of a run, in the order in which the stages began."""
    found = []
    for path in folder.glob(f"{AT}*") if folder is not None else []:
        try:
            found.append(Progress(**json.loads(path.read_text(encoding="utf-8"))))
        except OSError:
            continue  # the run has ended meanwhile
    return sorted(found, key=lambda note: (note.began, note.stage))
