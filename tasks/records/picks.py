"""Responses that were chosen among a policy's own, as demonstrations: rejection sampling writes them, fine-tuning reads them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tasks.records.choices import BEST, BY_LOT
from tasks.records.data import read_records
from tasks.records.records import Demonstration


def picked_among(inputs: Iterable[str]) -> str | None:
    """Which of the two a stage was given as input instead of the data's demonstrations, if one."""
    return next((name for name in (BEST, BY_LOT) if name in inputs), None)


def read_picks(folder: Path, name: str) -> Sequence[Demonstration]:
    """The demonstrations called ``name`` in the artifact of rejection sampling."""
    return read_records(picks_file(folder, name), Demonstration)


def picks_file(folder: Path, name: str) -> Path:
    """Where they lie."""
    return folder / name / "train.arrow"
