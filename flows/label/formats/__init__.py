"""Labels in the files of other tools, there and back. Each format writes a folder and reads one file."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from flows.label.desk import same_answer
from flows.label.formats import label_studio, potato, rankings
from tasks.engine.errors import DataError
from tasks.engine.os_errors import readable_os_errors
from tasks.records.labels import Label, LabelBatch, append_label, check_label, read_labels


class Format(NamedTuple):
    """How one tool's files are written and read."""

    write: Callable[[LabelBatch, Sequence[Label]], dict[str, str]]
    """File name -> content: the items, the tool's settings, and the labels there are."""
    read: Callable[[LabelBatch, Path, datetime], list[Label]]
    """The labels in a file; the moment is that of labels without one."""


FORMATS = {
    "label_studio": Format(label_studio.write, label_studio.read),
    "potato": Format(potato.write, potato.read),
    "rankings": Format(rankings.write, rankings.read),
}


def export_labels(name: str, batch: LabelBatch, folder: Path) -> list[Path]:
    """Write a batch with its labels for a tool; returns the files.

    Raises:
        ArtifactError: they cannot be written.
    """
    files = FORMATS[name].write(batch, read_labels(batch))
    with readable_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (folder / file).write_text(content, encoding="utf-8")
    return [folder / file for file in files]


def import_labels(name: str, batch: LabelBatch, path: Path) -> tuple[int, int]:
    """Add the labels in a tool's file: how many were new, and how many were there already.

    All of them are checked before the first is added.

    Raises:
        DataError: the file cannot be read, or a label does not fit the batch.
        ArtifactError: they cannot be written.
    """
    if not path.is_file():
        raise DataError(f"{path}: found no such file, expected one that {name} wrote")
    found = FORMATS[name].read(batch, path, datetime.now(UTC))
    for label in found:
        check_label(batch, label, f"{path}: label of {label.labeler} for {label.item_id}")
    known, new = {(label.labeler, label.item_id): label for label in read_labels(batch)}, 0
    for label in found:
        old = known.get((label.labeler, label.item_id))
        if old is None or not same_answer(old, label):
            append_label(batch, label)
            known[label.labeler, label.item_id] = label
            new += 1
    return new, len(found) - new
