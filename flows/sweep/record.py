"""What the processes of a sweep tell each other: small JSON files in Hydra's sweep folder, replaced atomically.

Files rather than shared memory, because a launcher may start the points in other processes or on other machines.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from flows.run.summary import StageRecord
from flows.sweep.config import SweepConfig
from flows.sweep.timing import Span

SWEEP = "sweep.json"
POINTS = "points"
LONGEST_NUMBER = 6

State = Literal["waiting", "running", "finished", "failed", "interrupted"]


class SweepFile(BaseModel):
    """A file of the sweep folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The record in a file; None when there is no such file."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def write(self, path: Path) -> None:
        """Replace the file in one step, so that no reader sees half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}-{os.getpid()}")
        draft.write_text(self.model_dump_json(indent=1), encoding="utf-8")
        draft.replace(path)


class SweepRecord(SweepFile):
    """The sweep as a whole; written once, before its first point."""

    name: str
    command: str
    """What to type to run it again."""
    run_id: str
    """MLflow run that is the parent of the points' runs."""
    experiment_id: str
    tracking_uri: str
    process: int
    """Process id of the command that launches the points."""
    started: float
    """Seconds since the epoch."""
    knobs: list[str]
    """Swept keys, in the order of the command line."""
    planned: list[list[str]]
    """Overrides of every point; empty when the sweeper chooses them as it goes."""
    expected: int
    """Number of points."""
    weighing: SweepConfig


class SweptPoint(SweepFile):
    """One point."""

    number: int
    values: dict[str, str]
    """Swept key -> value, as on the command line."""
    state: State
    error: str
    """Why it failed, or why a finished one did not pass the gate, in one sentence; empty otherwise."""
    run_id: str
    """MLflow run of its pipeline; empty until it has finished."""
    started: float
    ended: float
    """Seconds since the epoch; ``ended`` grows while it runs."""
    version: str | None = None
    """Version of the registered model that its policy became; None when it did not pass the gate, or none was asked for."""
    metrics: dict[str, float]
    stages: list[StageRecord]
    spans: list[Span]
    """When its stages worked."""

    @property
    def label(self) -> str:
        """``#3 ppo.beta=0.02 ppo.gamma=1``."""
        return " ".join([f"#{self.number}", *(f"{knob}={short(value)}" for knob, value in self.values.items())])

    @property
    def seconds(self) -> float:
        """Wall clock of this point."""
        return self.ended - self.started

    @property
    def ran(self) -> list[str]:
        """Stages that this point ran itself."""
        return [stage.stage for stage in self.stages if stage.ran]


def short(value: str) -> str:
    """A swept value for people: what a search proposes has seventeen digits."""
    try:
        return value if len(value) <= LONGEST_NUMBER else f"{float(value):.4g}"
    except ValueError:
        return value


def waiting(number: int, overrides: Sequence[str], knobs: Sequence[str]) -> SweptPoint:
    """The record of a point that has not begun."""
    return SweptPoint(
        number=number,
        values=values_of(overrides, knobs),
        state="waiting",
        error="",
        run_id="",
        started=0.0,
        ended=0.0,
        metrics={},
        stages=[],
        spans=[],
    )


def values_of(overrides: Sequence[str], knobs: Sequence[str]) -> dict[str, str]:
    """The swept values among a point's overrides."""
    given = {key.lstrip("+~"): value for key, _, value in (text.partition("=") for text in overrides)}
    return {knob: given[knob] for knob in knobs if knob in given}


def point_file(folder: Path, number: int) -> Path:
    """Where a point's record lies."""
    return folder / POINTS / f"{number}.json"


def read_points(folder: Path, sweep: SweepRecord) -> list[SweptPoint]:
    """Every point that is planned or has begun, in order."""
    points = {number: waiting(number, overrides, sweep.knobs) for number, overrides in enumerate(sweep.planned)}
    now = time.time()
    for path in (folder / POINTS).glob("*.json"):
        point = SweptPoint.read(path)
        if point is not None:
            points[point.number] = point.model_copy(update={"ended": now}) if point.state == "running" else point
    return [points[number] for number in sorted(points)]
