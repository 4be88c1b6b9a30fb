"""Training that survives a crash: atomic checkpoints, and a loop that continues from the last one.

A checkpoint is one file ``step-<number>.pt`` in a folder of its own. It appears by a rename, so it is whole or absent. Its
SHA-256 lies beside it: what does not agree with it is set aside, and the training goes on from the checkpoint before.
"""

import json
import logging
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol, runtime_checkable

from tasks.engine.digests import file_digest
from tasks.engine.errors import Interrupted, TrainingDiverged
from tasks.engine.os_errors import readable_os_errors
from tasks.engine.ranks import here

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 2
"""Checkpoints that stay in the folder."""
UNFINISHED = ".unfinished-"
"""How the name of a checkpoint begins that is being written."""
DIGEST = ".sha256"
"""End of the name of the file with a checkpoint's digest; `sha256sum -c` reads it."""
DAMAGED = "damaged-"
"""How the name of a checkpoint begins that was set aside."""
_NAME = re.compile(r"step-(\d+)\.pt")
logger = logging.getLogger("plumbline")


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


class Inspection(NamedTuple):
    """What a person wants to see of a step that went wrong."""

    rows: list[dict[str, Any]]
    """One JSON object per example, with texts."""
    tensors: "dict[str, Tensor]"
    """The numbers behind them; the first dimension is the example."""


@runtime_checkable
class Inspectable(Protocol):
    """A learner that can show what its latest step was made of."""

    def inspection(self) -> Inspection:
        """The latest step's examples, whether or not the step went well."""
        ...


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write a checkpoint; a crash at any moment leaves the earlier ones as they were.

    Raises:
        ArtifactError: the file cannot be written, for instance because the disk is full.
    """
    import torch  # here, and where one is read: whoever asks for the latest step needs none of it

    final = folder / f"step-{step:08d}.pt"
    with readable_os_errors(final):
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=UNFINISHED)
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            # First: a crash between the two leaves a digest without its checkpoint, which nobody reads.
            _write_digest(final, file_digest(Path(name)))
            os.replace(name, final)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync_folder(folder)
        _prune(folder)
    return final


def latest_checkpoint(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Step and state of the newest sound checkpoint, tensors on the CPU; None when there is none.

    A checkpoint whose bytes are not those that were written is named in the log, set aside under another name, and the
    one before it counts. Only tensors and plain values are unpickled, so a checkpoint from elsewhere cannot run code.
    """
    import torch

    for step, path in reversed(_steps(folder)):
        problem = _damage(path)
        if problem is None:
            try:
                return step, torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # torch has no common class for what it cannot read
                problem = f"it cannot be read ({type(error).__name__})"
        _set_aside(path)
        before = latest_step(folder)
        goes_on = "from the start" if before is None else f"from the checkpoint of step {before}"
        logger.warning(
            "%s: %s; it is set aside as %s, and training goes on %s", path, problem, DAMAGED + path.name, goes_on
        )
    return None


def _damage(path: Path) -> str | None:
    """What is wrong with the bytes of a checkpoint, in words; None when its digest agrees."""
    found = file_digest(path)
    try:
        expected = _digest_file(path).read_text(errors="replace", encoding="utf-8").split()[0]
    except (FileNotFoundError, IndexError):
        return f"there is no SHA-256 in {_digest_file(path).name}"
    return None if found == expected else f"its SHA-256 is {found[:12]}, expected {expected[:12]}"


def _digest_file(path: Path) -> Path:
    return path.with_name(path.name + DIGEST)


def _write_digest(path: Path, digest: str) -> None:
    with _digest_file(path).open("w") as file:
        file.write(f"{digest}  {path.name}\n")
        file.flush()
        os.fsync(file.fileno())


def _set_aside(path: Path) -> None:
    """Keep a damaged checkpoint, the latest one only, for whoever wants to look at it."""
    for old in path.parent.glob(f"{DAMAGED}*"):
        old.unlink()
    path.rename(path.with_name(DAMAGED + path.name))
    _digest_file(path).unlink(missing_ok=True)


def latest_step(folder: Path) -> int | None:
    """Step of the newest checkpoint, without reading it; None when there is none."""
    steps = _steps(folder)
    return steps[-1][0] if steps else None


def resumable(
    learner: Learner,
    folder: Path,
    every: int,
    told_to_stop: Callable[[], bool] = lambda: False,
    *,
    seconds: float = math.inf,
    before_saving: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train to the end, from the latest checkpoint if there is one.

    Yields (number of completed steps, metrics) after each step. The checkpoint of a step is written once the consumer
    asks for the next one, so whatever it recorded of that step is not lost with a crash in between. A learner that goes
    on from a checkpoint first yields that checkpoint's own step again, for consumers that keep metrics in memory.

    Args:
        learner: advanced in place.
        folder: where its checkpoints are.
        every: steps between two checkpoints; the last step always gets one.
        told_to_stop: asked between two steps.
        seconds: a step that ends this long after the last checkpoint gets one too.
        before_saving: called before each checkpoint is written.

    Raises:
        Interrupted: it was told to stop; a checkpoint of the last completed step is there.
        TrainingDiverged: a metric is not a finite number. No checkpoint of that step is written; what it was made of is
            kept beside the checkpoints, if the learner is ``Inspectable``.
    """
    ranks, found = here(), _checkpoint_of_all(folder)
    if found is not None:
        saved, state = found
        learner.load_state_dict(state["learner"])
        assert learner.completed_steps == saved, f"checkpoint {saved} holds step {learner.completed_steps}"
        yield saved, state["metrics"]
    saved_at = time.monotonic()
    while learner.completed_steps < learner.total_steps:
        metrics = learner.step()
        step = learner.completed_steps
        if broken := [name for name, value in metrics.items() if not math.isfinite(value)]:
            _give_up(learner, folder, broken[0], metrics[broken[0]])
        yield step, metrics
        last = step == learner.total_steps
        stopping = not last and ranks.once(told_to_stop)
        due = step % every == 0 or last or stopping
        if due or ranks.once(partial(_passed, saved_at, seconds)):
            state = {"learner": learner.state_dict(), "metrics": metrics}  # ranks may have to put it together
            if ranks.first:
                before_saving()
                save_checkpoint(folder, step, state)
            del state
            saved_at = time.monotonic()
        if stopping:
            ranks.wait()  # for the first one, which saves
            raise Interrupted(f"stopped at step {step} of {learner.total_steps}, as it was told to; its state is saved")


def _passed(since: float, seconds: float) -> bool:
    return time.monotonic() - since >= seconds


def _checkpoint_of_all(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """The latest checkpoint, for every rank; the first one looks first and sets aside what is damaged."""
    ranks = here()
    found = latest_checkpoint(folder) if ranks.first else None
    ranks.wait()
    return found if ranks.first else latest_checkpoint(folder)


def _give_up(learner: Learner, folder: Path, name: str, value: float) -> NoReturn:
    """Keep what the step was made of, and say where."""
    step, kept = learner.completed_steps, ""
    if isinstance(learner, Inspectable) and here().first:
        from safetensors.torch import save_file

        shown = learner.inspection()
        texts, numbers = folder / f"diverged-{step:08d}.jsonl", folder / f"diverged-{step:08d}.safetensors"
        with readable_os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            texts.write_text(
                "".join(json.dumps(_plain(row), ensure_ascii=False) + "\n" for row in shown.rows), encoding="utf-8"
            )
            save_file(
                {key: tensor.detach().cpu().clone().contiguous() for key, tensor in shown.tensors.items()}, numbers
            )
        kept = f"; what that step was made of is in {texts} and {numbers.name}"
    good = _steps(folder)
    last = (
        f"; the last good checkpoint is {good[-1][1].name} in {folder}"
        if good
        else "; there is no checkpoint before it"
    )
    raise TrainingDiverged(
        f"step {step}: {name} is {value}, expected a finite number{kept}{last}; the same command would come to the same "
        "step again: lower the learning rate, or look at the metrics of the steps before"
    )


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN; what is not finite becomes its name."""
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }


def _steps(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    named = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted((int(match[1]), path) for match, path in named)


def _prune(folder: Path) -> None:
    for _, path in _steps(folder)[:-KEPT]:
        path.unlink(missing_ok=True)
        _digest_file(path).unlink(missing_ok=True)
    # Left by a process that was killed; the stage's lock excludes a living one.
    for path in folder.glob(f"{UNFINISHED}*"):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
