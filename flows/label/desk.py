"""Which item a labeler gets next, and in which order its responses are shown.

Both orders are fixed by the names of labeler and item, so a reload or a restart changes nothing. An item that is not
shared is lent to one labeler at a time; what is lent is known to this process alone, so a restart may hand an item to two,
and both labels count.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from tasks.engine.errors import DataError
from tasks.language.seeds import named_random
from tasks.records.labels import (
    BATCH,
    Item,
    Label,
    LabelBatch,
    append_label,
    batch_folder,
    batches,
    labels_files,
    labels_in,
    read_batch,
)

LENT_SECONDS = 1800.0
"""An item that nobody answers for so long is handed to somebody else."""


def shown_order(labeler: str, item: Item) -> list[int]:
    """``order[place]`` is the response shown at a place."""
    order = list(range(len(item.responses)))
    named_random(0, f"label/responses/{labeler}/{item.item_id}").shuffle(order)
    return order


Found = TypeVar("Found")


class Remembered(Generic[Found]):
    """What was read of files, until they change; a batch of thousands is not read again for every click."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], Found]] = {}

    def read(self, path: Path, read: Callable[[], Found]) -> Found:
        """What ``read`` returns, or returned when the file was as it is now."""
        state = path.stat()
        marks = (state.st_ino, state.st_size, state.st_mtime_ns)
        if path not in self._known or self._known[path][0] != marks:
            self._known[path] = marks, read()
        return self._known[path][1]


class Desk:
    """The batches of one home folder."""

    def __init__(self, home: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.home, self._clock = home, clock
        self._lock = threading.Lock()
        self._batches: Remembered[LabelBatch] = Remembered()
        self._labels: Remembered[list[Label]] = Remembered()
        self._orders: dict[tuple[str, str], tuple[LabelBatch, list[Item]]] = {}
        self._loans: dict[tuple[str, str], dict[str, float]] = {}

    def batches(self) -> list[str]:
        """Ids of all batches, sorted."""
        return batches(self.home)

    def batch(self, batch_id: str) -> LabelBatch:
        """A batch that is there.

        Raises:
            DataError: there is none of this id.
        """
        if batch_id not in self.batches():
            raise DataError(f"there is no labelling batch {batch_id!r}")
        folder = batch_folder(self.home, batch_id)
        return self._batches.read(folder / BATCH, lambda: read_batch(folder))

    def labels(self, batch: LabelBatch) -> list[Label]:
        """The answers that count, of all labelers.

        Raises:
            DataError: an answer that does not fit the batch.
        """
        read = self._labels.read
        return [label for path in labels_files(batch) for label in read(path, lambda path=path: labels_in(batch, path))]

    def next_item(self, batch: LabelBatch, labeler: str) -> Item | None:
        """The item that is lent to the labeler already, or else the next one, which is lent now."""
        answered = _answered(self.labels(batch))
        with self._lock:
            lent = [
                batch.items[item_id]
                for (of, item_id), loans in self._loans.items()
                if of == batch.batch.id and loans and item_id in batch.items
            ]
            mine = [item for item in lent if labeler in self._borrowers(batch, item)]
            for item in [*mine, *self._order(batch, labeler)]:
                if self._is_open(batch, labeler, item, answered):
                    until = self._clock() + LENT_SECONDS
                    self._loans.setdefault((batch.batch.id, item.item_id), {})[labeler] = until
                    return item
        return None

    def left(self, batch: LabelBatch, labeler: str, labels: list[Label]) -> int:
        """How many items there are for a labeler still."""
        answered = _answered(labels)
        with self._lock:
            return sum(self._is_open(batch, labeler, item, answered) for item in batch.items.values())

    def may_answer(self, batch: LabelBatch, labeler: str, item: Item) -> bool:
        """Whether an item is for this labeler, or was answered by this labeler before."""
        answered = _answered(self.labels(batch))
        with self._lock:
            return labeler in answered[item.item_id] or self._is_open(batch, labeler, item, answered)

    def put(self, batch: LabelBatch, label: Label) -> None:
        """Keep a label; the same answer a second time is not written again.

        Raises:
            DataError: it does not fit the batch.
            ArtifactError: it cannot be written.
        """
        with self._lock:
            mine = (old for old in self.labels(batch) if (old.labeler, old.item_id) == (label.labeler, label.item_id))
            if not any(same_answer(old, label) for old in mine):
                append_label(batch, label)

    def _order(self, batch: LabelBatch, labeler: str) -> list[Item]:
        key = (batch.batch.id, labeler)
        if key not in self._orders or self._orders[key][0] is not batch:
            items = list(batch.items.values())
            named_random(0, f"label/items/{batch.batch.id}/{labeler}").shuffle(items)
            self._orders[key] = batch, items
        return self._orders[key][1]

    def _is_open(self, batch: LabelBatch, labeler: str, item: Item, answered: Mapping[str, set[str]]) -> bool:
        theirs = answered.get(item.item_id, set())
        if labeler in theirs or item.shared:
            return labeler not in theirs
        return len((theirs | self._borrowers(batch, item)) - {labeler}) < batch.batch.labels_per_item

    def _borrowers(self, batch: LabelBatch, item: Item) -> set[str]:
        loans = self._loans.get((batch.batch.id, item.item_id))
        return set() if not loans else {labeler for labeler, until in loans.items() if until > self._clock()}


def _answered(labels: Iterable[Label]) -> defaultdict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for label in labels:
        found[label.item_id].add(label.labeler)
    return found


def same_answer(old: Label, new: Label) -> bool:
    """Whether two labels mean the same, whenever they were given."""
    fields = {"item_id", "labeler", "ranks", "quality", "flags", "skipped"}
    return old.model_dump(include=fields) == new.model_dump(include=fields)
