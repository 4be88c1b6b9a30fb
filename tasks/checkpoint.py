"""Training that survives a crash: atomic checkpoints, and a loop that continues from the last one.

A checkpoint is one file ``step-<number>.pt`` in a folder of its own. It appears by a rename, so it is whole or absent.
"""

import math
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

from tasks.errors import ArtifactError, TrainingDiverged

KEPT = 2
"""Checkpoints that stay in the folder."""
_NAME = re.compile(r"step-(\d+)\.pt")
_UNFINISHED = ".unfinished-"


class Learner(Protocol):
    """What a training stage owns: exactly the state that must survive a crash."""

    completed_steps: int

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        ...

    def step(self) -> dict[str, float]:
        """Advance ``completed_steps`` by one; returns the step's metrics."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings, and containers of them; enough to continue as if nothing had happened."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        ...


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write a checkpoint; a crash at any moment leaves the earlier ones as they were.

    Raises:
        ArtifactError: the file cannot be written, for instance because the disk is full.
    """
    final = folder / f"step-{step:08d}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=_UNFINISHED)
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, final)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise ArtifactError(
            f"{final}: the checkpoint could not be written ({error}); free disk space or give the store another place, "
            "then run again to continue from the checkpoint before it"
        ) from error
    _prune(folder)
    return final


def latest_checkpoint(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Step and state of the newest checkpoint, tensors on the CPU; None when there is none.

    Only tensors and plain values are unpickled, so a checkpoint from elsewhere cannot run code.

    Raises:
        ArtifactError: the newest checkpoint is damaged.
    """
    steps = _steps(folder)
    if not steps:
        return None
    step, path = steps[-1]
    try:
        return step, torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no common class for the ways in which a file can be damaged
        raise ArtifactError(
            f"{path}: the checkpoint cannot be read ({type(error).__name__}), expected a file written by this program; "
            "delete it to continue from the one before it, or from the start if there is none"
        ) from error


def resumable(learner: Learner, folder: Path, every: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Train to the end, from the latest checkpoint if there is one.

    Yields (number of completed steps, metrics) after each step. The checkpoint of a step is written once the consumer
    asks for the next one, so whatever it recorded of that step is not lost with a crash in between.

    Args:
        learner: advanced in place.
        folder: where its checkpoints are.
        every: steps between two checkpoints; the last step always gets one.

    Raises:
        TrainingDiverged: a metric is not a finite number. No checkpoint of that step is written.
    """
    found = latest_checkpoint(folder)
    if found is not None:
        learner.load_state_dict(found[1])
        assert learner.completed_steps == found[0], f"checkpoint {found[0]} holds step {learner.completed_steps}"
    while learner.completed_steps < learner.total_steps:
        metrics = learner.step()
        step = learner.completed_steps
        _check_finite(metrics, step)
        yield step, metrics
        if step % every == 0 or step == learner.total_steps:
            save_checkpoint(folder, step, learner.state_dict())


def _check_finite(metrics: dict[str, float], step: int) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"step {step}: {name} is {value}, expected a finite number; lower the learning rate, or look at the "
                "metrics of the steps before"
            )


def _steps(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    named = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted((int(match[1]), path) for match, path in named)


def _prune(folder: Path) -> None:
    for _, path in _steps(folder)[:-KEPT]:
        path.unlink(missing_ok=True)
    # Left by a process that was killed; the stage's lock excludes a living one.
    for path in folder.glob(f"{_UNFINISHED}*"):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
