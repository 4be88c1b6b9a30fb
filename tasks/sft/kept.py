"""Weights of every epoch, kept beside the checkpoints until the stage is done, each with the digests of its files."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from tasks.engine.digests import differences, file_digest, folder_digests, strangers
from tasks.engine.ranks import here

SUMS = "sha256.json"
"""In the folder of each epoch: its files' SHA-256."""
logger = logging.getLogger("plumbline")


def keep(folder: Path, save: Callable[[Path], None]) -> None:
    """Have an epoch's weights saved; its folder appears by a rename with its digests in it, so it is whole or absent.

    Args:
        folder: of this epoch.
        save: writes the weights into a folder; every rank calls it, and the first one writes.
    """
    draft = folder.with_name(f".{folder.name}")
    if here().first:
        shutil.rmtree(draft, ignore_errors=True)
    save(draft)
    if here().first:
        (draft / SUMS).write_text(json.dumps(folder_digests(draft)), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)


def begin_again_if_damaged(epochs: Path) -> None:
    """Forget all training if an epoch's weights are not those that were written: no later checkpoint has them."""
    if here().first and (problems := [found for folder in sorted(epochs.glob("[0-9]*")) for found in _damage(folder)]):
        logger.warning("%s; no later checkpoint has that epoch's weights, so training begins again", problems[0])
        shutil.rmtree(epochs)
        for checkpoint in epochs.parent.glob("step-*"):
            checkpoint.unlink()
    here().wait()


def _damage(folder: Path) -> list[str]:
    try:
        written = json.loads((folder / SUMS).read_text(encoding="utf-8"))
        found = [*differences(folder, written, file_digest), *strangers(folder, written | {SUMS: ""})]
    except (OSError, ValueError, TypeError, AttributeError):
        found = [f"{SUMS} cannot be read"]
    return [f"{folder}: {problem}" for problem in found]
