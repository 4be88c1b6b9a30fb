"""What is kept of each point: the numbers that the page is made of, beside the artifacts they come from.

A record is addressed by what its numbers depend on (configuration, source), so that a second study finds the points that
still hold and runs the others, and a page can be written from whatever points there are.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from flows.config import RLHFConfig
from flows.process.environment import PROJECT
from flows.study.points import Kind, Point
from tasks.engine.config import Config
from tasks.engine.errors import ArtifactError
from tasks.engine.fingerprint import source_digests

TRUNK = ("data_prep", "pretrain", "sft", "comparisons", "reward_model")
STAGES: dict[Kind, tuple[str, ...]] = {
    "policy": (*TRUNK, "ppo", "dpo", "rejection_sampling", "measure", "compare"),
    "reward_model": TRUNK,
    "sft_epochs": TRUNK,
}
NOT_MEANING = ("runtime", "tracking", "sweep")
WIRING = (
    "flows/config.py",
    "flows/roads.py",
    "flows/instructgpt.py",
    "flows/rlhf.py",
    "flows/study/measure.py",
    "flows/run/summary.py",
)


class PointRecord(BaseModel):
    """One point, measured or failed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    point: Point
    fingerprint: str
    """What the numbers depend on."""
    error: str | None = None
    """Why there are no numbers; None when there are."""
    seconds: float
    """How long the point took in its process, what it found in the store included."""
    run_id: str = ""
    """MLflow run."""
    metrics: dict[str, float] = {}
    """Final figures; shares in [0, 1]."""
    history: list[dict[str, float]] = []
    """PPO, one row an iteration."""
    best_of_n: list[dict[str, float]] = []
    """n, kl, and the mean score of the pick by each judge."""


class Session(BaseModel):
    """One call of the study that ran points."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float
    fingerprints: list[str]
    """Points it ran, well or badly."""
    workers: int


def fingerprint_of(point: Point, config: RLHFConfig) -> str:
    """20 hex digits over the configuration and the source that a point's numbers depend on."""
    fields: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if name not in NOT_MEANING:
            fields[name] = value.fingerprint_fields() if isinstance(value, Config) else value
    if point.kind != "policy":  # these end before PPO
        for name in ("ppo_init", "ppo", "evaluation"):
            del fields[name]
    depends_on = {
        "kind": point.kind,
        "epochs": point.epochs,
        "row": point.row,
        "config": fields,
        "source": {stage: source_digests(f"tasks.{stage}") for stage in STAGES[point.kind]},
        "wiring": {name: hashlib.sha256((PROJECT / name).read_bytes()).hexdigest() for name in WIRING},
    }
    text = json.dumps(depends_on, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class RecordStore:
    """Records below one folder, one file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "points"
        self.folder.mkdir(parents=True, exist_ok=True)

    def read(self, fingerprint: str) -> PointRecord | None:
        """The record of a point, or None when it was never run.

        Raises:
            ArtifactError: the file cannot be understood.
        """
        path = self.folder / f"{fingerprint}.json"
        if not path.is_file():
            return None
        try:
            return PointRecord.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise ArtifactError(
                f"{path}: damaged record of a point ({error.error_count()} errors); remove the file, the next study "
                "measures the point again"
            ) from error

    def read_all(self, fingerprints: Mapping[Point, str]) -> dict[Point, PointRecord]:
        """The records there are."""
        found = ((point, self.read(fingerprint)) for point, fingerprint in fingerprints.items())
        return {point: record for point, record in found if record is not None}

    def write(self, record: PointRecord) -> None:
        """Keep a record; an earlier one of the same point gives way."""
        write_text(self.folder / f"{record.fingerprint}.json", record.model_dump_json(indent=1) + "\n")


class SessionLog:
    """How long the calls of one study took."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "sessions.json"

    def of(self, records: Iterable[PointRecord]) -> list[Session]:
        """The calls that ran any of these points; those before a change of configuration or source ran none of them."""
        current = {record.fingerprint for record in records}
        return [item for item in self.read() if current & set(item.fingerprints)]

    def read(self) -> list[Session]:
        """Every call so far.

        Raises:
            ArtifactError: the file cannot be understood.
        """
        if not self._path.is_file():
            return []
        try:
            return [Session.model_validate(item) for item in json.loads(self._path.read_text(encoding="utf-8"))]
        except ValueError as error:  # of JSON or of pydantic
            raise ArtifactError(
                f"{self._path}: damaged list of calls ({type(error).__name__}); remove the file, the page then counts "
                "the wall time of later calls only"
            ) from error

    def add(self, session: Session) -> None:
        """Remember one more call."""
        rows = [item.model_dump() for item in [*self.read(), session]]
        write_text(self._path, json.dumps(rows, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file in one step, so that a killed process leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def missing_points(points: Iterable[Point], records: Mapping[Point, PointRecord]) -> list[Point]:
    """Points that were never measured, or failed the last time."""
    return [point for point in points if point not in records or records[point].error is not None]
