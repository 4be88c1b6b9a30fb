"""What a run shows of its stages while they run: bars on a terminal, elsewhere a line when one starts and when it ends.

The run's own process draws all of them, from the notes that the stages keep; stages that run side by side, in whatever
process, so never write over each other.
"""

import logging
import sys
import threading
import time
from pathlib import Path
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from tasks.engine.progress import Progress as Note
from tasks.engine.progress import read_progress

logger = logging.getLogger("plumbline")
LOOK_SECONDS = 0.25
LINE_SECONDS = 60.0
"""Between two lines about a stage that is under way, where there is no bar."""


def in_words(seconds: float) -> str:
    """``42 s``, ``7 min``, ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def counted(note: Note) -> str:
    """``31 of 64 steps``; empty where nothing is counted."""
    return f"{note.done} of {note.total} {note.unit}{'' if note.total == 1 else 's'}" if note.unit else ""


def state_of(note: Note, now: float) -> str:
    """How a stage does, or how it ended, in a few words."""
    took = in_words((note.ended or now) - note.began)
    if note.state != "running":
        return {"made": f"done in {took}", "found": "found in the store"}.get(note.state, f"ended after {took}")
    left = note.left(now)
    words = [counted(note), note.metrics, "" if left is None else f"about {in_words(left)} left"]
    return ", ".join(word for word in words if word) or "at work"


class Bars:
    """Looks at the notes of a run from a thread of its own until it is stopped.

    Args:
        folder: the run's.
        bars: draw bars if the console is a terminal.
        console: where; standard error if not given. Lines go to the log, which may be asked to be quiet.
        waiting_for: what a bar of its own names as long as no stage has begun; there is none where it is empty.
    """

    def __init__(self, folder: Path | None, bars: bool, console: Console | None = None, waiting_for: str = "") -> None:
        self._folder, self._console, self._waiting_for = folder, console or Console(stderr=True), waiting_for
        self._began, self._wait = time.time(), TaskID(-1)
        self._drawn: dict[str, TaskID] = {}
        self._said: dict[str, tuple[str, float]] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look_until_end, name="progress", daemon=True)
        columns = (
            TextColumn("{task.description:<22}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[words]}", markup=False),
        )
        self._bars: Progress | None = None
        if bars and self._console.is_terminal:
            self._bars = Progress(*columns, console=self._console, auto_refresh=False)
        self._streams: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    def __enter__(self) -> Self:
        if self._bars is not None:
            before = {id(sys.stdout), id(sys.stderr)}
            if self._waiting_for:
                self._wait = self._bars.add_task("start", total=None, words=self._waiting_for)
            self._bars.start()
            for handler in logging.getLogger().handlers:  # a log line goes above the bars, not through them
                if isinstance(handler, logging.StreamHandler) and id(handler.stream) in before:
                    self._streams.append((handler, handler.stream))
                    handler.setStream(sys.stdout)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Show how everything ended, and leave it on the screen."""
        self._end.set()
        self._thread.join()
        self.look()
        for handler, stream in self._streams:
            handler.setStream(stream)
        if self._bars is not None:
            self._end_wait(self._bars)
            self._bars.stop()

    def _look_until_end(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """Read the notes and show what is new."""
        now = time.time()
        for note in read_progress(self._folder):
            if self._bars is not None:
                self._end_wait(self._bars)
                self._draw(self._bars, note, now)
            else:
                self._say(note, now)
        if self._bars is not None:
            if self._wait in self._bars.task_ids:
                self._bars.update(self._wait, words=f"{in_words(now - self._began)}: {self._waiting_for}")
            self._bars.refresh()

    def _end_wait(self, bars: Progress) -> None:
        if self._wait in bars.task_ids:
            bars.remove_task(self._wait)

    def _draw(self, bars: Progress, note: Note, now: float) -> None:
        total = 1 if note.state in ("made", "found") else note.total or None
        done = 1 if note.state in ("made", "found") else note.done
        if note.stage not in self._drawn:
            self._drawn[note.stage] = bars.add_task(note.stage, total=total, words="")
        bars.update(self._drawn[note.stage], total=total, completed=done, words=state_of(note, now))

    def _say(self, note: Note, now: float) -> None:
        state, said_at = self._said.get(note.stage, ("", 0.0))
        if note.state == state and (state != "running" or now - said_at < LINE_SECONDS):
            return
        if not state and note.state != "found":
            logger.info("%s: started", note.stage)
        if state or note.state != "running":
            logger.info("%s: %s", note.stage, state_of(note, now))
        self._said[note.stage] = (note.state, now)
