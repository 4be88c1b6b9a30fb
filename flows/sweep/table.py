"""The points of a sweep while they run: a live table in a terminal, a line per change elsewhere."""

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from flows import terminal
from flows.sweep.findings import MAXIMISED, TITLES, judge_of, measured, shown
from flows.sweep.record import State, SweepRecord, SweptPoint, read_points, short
from flows.tools.tracked import stages_at_work

LOOK_SECONDS = 1.0
ASK_SECONDS = 5.0
STYLES: Mapping[State, str] = {
    "waiting": "dim",
    "running": "bold",
    "finished": "green",
    "failed": "bold red",
    "interrupted": "yellow",
}


def points_table(points: Sequence[SweptPoint], sweep: SweepRecord, at_work: Mapping[int, Sequence[str]]) -> Table:
    """One row a point: its knobs, state, objectives, seconds and stages."""
    config = sweep.weighing
    judge = judge_of([point.metrics for point in points if point.state == "finished"], config) or config.judges[0]
    names = list(dict.fromkeys([config.quality, "kl", "regression"]))
    done = sum(point.state in ("finished", "failed") for point in points)
    table = Table(title=f"{sweep.name}: {done} of {max(sweep.expected, len(points))} points done", title_justify="left")
    table.add_column("#", justify="right")
    for knob in sweep.knobs:
        table.add_column(knob, justify="right")
    table.add_column("state")
    for name in names:
        table.add_column(TITLES[name] + (f"\n{judge}" if name in MAXIMISED else ""), justify="right")
    table.add_column("s", justify="right")
    table.add_column("stages")
    for point in points:
        found = measured(point.metrics, judge, config)
        state = ", ".join(at_work.get(point.number, ())) if point.state == "running" else ""
        table.add_row(
            str(point.number),
            *(short(point.values.get(knob, "")) for knob in sweep.knobs),
            state or point.state,
            *(shown(name, found[name]) if name in found else "" for name in names),
            f"{point.seconds:.0f}" if point.state != "waiting" else "",
            _stages(point),
            style=STYLES[point.state],
        )
    return table


def line(point: SweptPoint, sweep: SweepRecord) -> str:
    """A point's news in one line."""
    text = f"{point.label}: {point.state}"
    if point.state == "finished":
        judge = judge_of([point.metrics], sweep.weighing) or ""
        found = measured(point.metrics, judge, sweep.weighing)
        text += "".join(f", {TITLES[name]} {shown(name, value)}" for name, value in found.items())
        text += f", {point.seconds:.0f} s, {_stages(point)}"
        text += f", {point.error}" if point.error else ""
    elif point.state == "failed":
        text += f": {point.error.splitlines()[0]}"
    return text


def _stages(point: SweptPoint) -> str:
    if not point.stages:
        return ""
    return f"{len(point.ran)} ran, {len(point.stages) - len(point.ran)} found"


class Watch:
    """Shows the points from a thread of its own until it is stopped."""

    def __init__(self, folder: Path, sweep: SweepRecord, console: Console | None = None) -> None:
        self._folder, self._sweep = folder, sweep
        self._console = console or terminal.console()
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._seen: dict[int, State] = {}
        self._at_work: dict[int, list[str]] = {}
        self._asked = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look_until_end, name="sweep table", daemon=True)

    def start(self) -> None:
        """Begin to show."""
        if self._live:
            self._live.start()
        self._thread.start()

    def stop(self) -> None:
        """Show the last state and leave it on the screen."""
        self._end.set()
        self._thread.join()
        self._look()
        if self._live:
            self._live.stop()
        else:
            points = read_points(self._folder, self._sweep)
            self._console.print(points_table(points, self._sweep, {}))

    def _look_until_end(self) -> None:
        while not self._end.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        points = read_points(self._folder, self._sweep)
        if self._live:
            if any(point.state == "running" for point in points) and time.monotonic() > self._asked + ASK_SECONDS:
                self._asked = time.monotonic()
                sweep = self._sweep
                with suppress(Exception):  # a server that does not answer now may do so in a few seconds
                    self._at_work = stages_at_work(sweep.tracking_uri, sweep.experiment_id, sweep.run_id)
            self._live.update(points_table(points, self._sweep, self._at_work), refresh=True)
            return
        for point in points:
            if point.state != "waiting" and self._seen.get(point.number) != point.state:
                self._console.print(line(point, self._sweep), soft_wrap=True, highlight=False)
                self._seen[point.number] = point.state
