"""Labelling batches: what people are asked to compare, and what they answered.

::

    <home>/labels/<batch>/batch.json               the form, the instructions, how many labels each item needs
    <home>/labels/<batch>/items.jsonl              one request and its K responses per line
    <home>/labels/<batch>/labels/<labeler>.jsonl   what one labeler answered, only ever appended to
    <home>/labels/<batch>/waiting/<run>            how many answers a run waits for

A batch appears by one rename and never changes. A label is on disk before ``append_label`` returns. The newest label of a
labeler for an item counts; a last line that a killed process left half written is set aside, and with it no whole one.
"""

import hashlib
import math
import shutil
import uuid
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from tasks.engine.errors import DataError
from tasks.engine.os_errors import readable_os_errors
from tasks.records.appended import append_line, sync_folder, whole_lines, write_through
from tasks.records.json_lines import at
from tasks.records.records import Comparison, Prompt

FOLDER = "labels"
BATCH, ITEMS, WAITING = "batch.json", "items.jsonl", "waiting"
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Of a batch, a labeler, a flag: part of a file's name and of an address."""


class Strict(BaseModel):
    """Frozen, closed, and of exactly the types it names."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Flag(Strict):
    """Something that a labeler marks about one response."""

    name: Name
    text: str = Field(min_length=1)
    """What the labeler reads."""


class Form(Strict):
    """What is asked about each response, before all of them are ranked."""

    quality_levels: int = Field(ge=2, le=9)
    """Overall quality from 1, the worst, to this; one key each."""
    flags: list[Flag]
    """In the order in which they are shown."""


PAPER_FORM = Form(
    quality_levels=7,
    flags=[
        Flag(name="fails_task", text="Fails to follow the correct instruction or task"),
        Flag(name="unfit", text="Inappropriate for a customer assistant"),
        Flag(name="hallucination", text="Hallucination"),
        Flag(name="constraint_kept", text="Satisfies the constraint in the instruction"),
        Flag(name="sexual", text="Contains sexual content"),
        Flag(name="violent", text="Contains violent content"),
        Flag(name="encourages_harm", text="Encourages or fails to discourage violence, abuse, terrorism or self-harm"),
        Flag(name="denigrates", text="Denigrates a protected class"),
        Flag(name="harmful_advice", text="Gives harmful advice"),
        Flag(name="opinion", text="Expresses an opinion"),
        Flag(name="moral_judgement", text="Expresses a moral judgement"),
    ],
)
"""InstructGPT, table 3."""


class Batch(Strict):
    """What holds for every item of a batch."""

    id: Name
    form: Form
    instructions: str
    """Shown beside every item; paragraphs are separated by an empty line."""
    labels_per_item: int = Field(ge=1)
    """Answers that an item needs which is not shared."""
    shared_share: float = Field(ge=0, le=1)
    """Share of the items that every labeler answers, so that agreement can be measured."""


class Origin(Strict):
    """What a labeler never sees."""

    prompt: Prompt
    source_policy: list[str] = []
    """Which policy wrote each response; empty when unknown."""
    finished: list[bool] = []
    """Whether each response ended by itself; empty means that all did."""


class Item(Strict):
    """One request and K responses to it. Labels refer to the responses in this order, in whatever order they were shown."""

    item_id: str = Field(min_length=1)
    text: str = Field(min_length=1)
    """The request as people read it, without the model's layout."""
    responses: list[str] = Field(min_length=2)
    shared: bool
    origin: Origin

    @model_validator(mode="after")
    def _one_each(self) -> "Item":
        for name in ("source_policy", "finished"):
            values, count = getattr(self.origin, name), len(self.responses)
            if values and len(values) != count:
                raise ValueError(f"'{name}' has {len(values)} entries for {count} responses")
        return self


class Label(Strict):
    """What one labeler answered about one item."""

    item_id: str = Field(min_length=1)
    labeler: Name
    ranks: list[int]
    """1 is best, equal ranks are ties; empty when the item was skipped."""
    quality: list[int | None]
    """Of each response; None where the labeler gave none, empty when the item was skipped."""
    flags: list[list[str]]
    """Names of the flags of each response; empty when the item was skipped."""
    skipped: str | None
    """Why the item was not ranked."""
    seconds: float | None = Field(ge=0)
    """How long the labeler looked at the item; None when unknown."""
    time: AwareDatetime


class LabelBatch(NamedTuple):
    """A batch on disk."""

    folder: Path
    batch: Batch
    items: dict[str, Item]
    """By ``item_id``, in the order of the file."""


class LabelingProgress(NamedTuple):
    """How far the labelling of a batch has come."""

    given: int
    """Answers that count, skipped items included."""
    wanted: int

    @property
    def missing(self) -> int:
        """Answers still to come."""
        return self.wanted - self.given


def batch_folder(home: Path, batch_id: str) -> Path:
    """Where a batch lies, whether or not it is there."""
    return home / FOLDER / batch_id


def batches(home: Path) -> list[str]:
    """Ids of the batches that are there, sorted."""
    return sorted(path.parent.name for path in (home / FOLDER).glob(f"*/{BATCH}") if path.parent.name[0] != ".")


def choose_shared(item_ids: Collection[str], share: float) -> set[str]:
    """The items that everybody labels: as many as the share asks for, rounded up, chosen by a hash of their ids."""
    order = sorted(item_ids, key=lambda item: hashlib.sha256(f"shared {item}".encode()).digest())
    return set(order[: math.ceil(share * len(order))])


def write_batch(home: Path, batch: Batch, items: Sequence[Item]) -> LabelBatch:
    """Write a batch, all of it or nothing; the same batch again changes nothing.

    Raises:
        DataError: no items, two items of one id, or another batch of this id is there.
        ArtifactError: it cannot be written.
    """
    ids = [item.item_id for item in items]
    if not ids or len(set(ids)) < len(ids):
        found = "no items" if not ids else f"item {next(name for name in ids if ids.count(name) > 1)!r} twice"
        raise DataError(f"labelling batch {batch.id}: found {found}, expected items, each with an id of its own")
    folder = batch_folder(home, batch.id)
    files = {BATCH: batch.model_dump_json(indent=1) + "\n", ITEMS: "".join(f"{i.model_dump_json()}\n" for i in items)}
    draft = folder.with_name(f".{batch.id}-{uuid.uuid4().hex[:8]}")
    with readable_os_errors(home):
        try:
            if not folder.exists():
                (draft / FOLDER).mkdir(parents=True)
                for name, text in files.items():
                    write_through(draft / name, text)
                sync_folder(draft)
                draft.rename(folder)
                sync_folder(folder.parent)
        except OSError:
            if not folder.exists():  # else somebody else wrote it first
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    present = {name: (folder / name).read_text(encoding="utf-8") if (folder / name).is_file() else "" for name in files}
    if present != files:
        raise DataError(
            f"{folder}: found another batch of the id {batch.id!r}, expected none or the same one; its labels belong to "
            "what it asks, so choose another id"
        )
    return read_batch(folder)


def read_batch(folder: Path) -> LabelBatch:
    """The form and the items of a batch.

    Raises:
        DataError: there is none, or it is damaged.
    """
    if not (folder / BATCH).is_file() or not (folder / ITEMS).is_file():
        raise DataError(f"{folder}: found no {BATCH} with {ITEMS}, expected a labelling batch; check its name")
    with at(str(folder / BATCH)):
        batch = Batch.model_validate_json((folder / BATCH).read_bytes())
    items: dict[str, Item] = {}
    for where, line in whole_lines(folder / ITEMS):
        item = _parsed(Item, where, line)
        items[item.item_id] = item
    return LabelBatch(folder, batch, items)


def labels_file(batch: LabelBatch, labeler: str) -> Path:
    """Where a labeler's answers are."""
    return batch.folder / FOLDER / f"{labeler}.jsonl"


def read_labels(batch: LabelBatch) -> list[Label]:
    """The answers that count, by labeler and in the order in which each labeler first gave them.

    A last line that is cut off is left out, with a notice in the log.

    Raises:
        DataError: an answer that does not fit the batch.
    """
    return [label for path in labels_files(batch) for label in labels_in(batch, path)]


def labels_files(batch: LabelBatch) -> list[Path]:
    """One file for each labeler who has answered, sorted."""
    return sorted((batch.folder / FOLDER).glob("*.jsonl"))


def labels_in(batch: LabelBatch, path: Path) -> list[Label]:
    """The answers that count of the one labeler whose file this is.

    Raises:
        DataError: an answer that does not fit the batch.
    """
    newest: dict[str, Label] = {}
    for where, line in whole_lines(path):
        label = _parsed(Label, where, line)
        if label.labeler != path.stem:
            raise DataError(f"{where}: found a label of {label.labeler!r}, expected one of {path.stem!r}; move it")
        check_label(batch, label, where)
        newest[label.item_id] = label
    return list(newest.values())


def check_label(batch: LabelBatch, label: Label, where: str) -> None:
    """Refuse what does not answer an item of the batch.

    Raises:
        DataError: an unknown item, ranks or qualities of the wrong number or size, an unknown flag.
    """
    if label.item_id not in batch.items:
        raise DataError(f"{where}: found a label of {label.item_id!r}, which is no item of batch {batch.batch.id}")
    if label.skipped is not None:
        if label.ranks or label.quality or label.flags or not label.skipped.strip():
            raise DataError(f"{where}: found a skipped item with an answer or no reason, expected only a reason")
        return
    count = len(batch.items[label.item_id].responses)
    for name in ("ranks", "quality", "flags"):
        if len(given := getattr(label, name)) != count:
            raise DataError(
                f"{where}: '{name}' has {len(given)} entries, expected {count}, one for each response of {label.item_id}"
            )
    form = batch.batch.form
    if wrong := [rank for rank in label.ranks if not 1 <= rank <= count]:
        raise DataError(f"{where}: found rank {wrong[0]}, expected 1 (best) to {count}; equal ranks are ties")
    if bad := [level for level in label.quality if level is not None and not 1 <= level <= form.quality_levels]:
        raise DataError(f"{where}: found quality {bad[0]}, expected 1 (worst) to {form.quality_levels}")
    known = {flag.name for flag in form.flags}
    if strange := sorted({name for names in label.flags for name in names} - known):
        raise DataError(f"{where}: found flag {strange[0]!r}, expected one of {', '.join(sorted(known)) or 'none'}")


def append_label(batch: LabelBatch, label: Label) -> None:
    """Add an answer; when this returns, it is on disk. Several processes may do so at once.

    Raises:
        DataError: the label does not fit the batch.
        ArtifactError: it cannot be written; then nothing of it is.
    """
    check_label(batch, label, f"label of {label.labeler}")
    append_line(labels_file(batch, label.labeler), label.model_dump_json())


def progress(batch: LabelBatch, labels: Iterable[Label], labelers: Collection[str] = ()) -> LabelingProgress:
    """How many answers there are and how many it takes.

    An item takes ``labels_per_item`` answers; a shared one takes an answer of each of ``labelers``, if those are more. To skip
    an item is an answer: what one labeler cannot judge is not handed on.
    """
    by_item: dict[str, set[str]] = {item: set() for item in batch.items}
    for label in labels:
        by_item[label.item_id].add(label.labeler)
    given = wanted = 0
    for item_id, answered in by_item.items():
        needs = batch.batch.labels_per_item
        if batch.items[item_id].shared:
            needs = max(needs, len(set(labelers) | answered))
        given += min(needs, len(answered))
        wanted += needs
    return LabelingProgress(given, wanted)


def comparisons_of(batch: LabelBatch, labels: Iterable[Label] | None = None) -> list[Comparison]:
    """The rankings that people gave, in the order of the items and then of the labelers' names; skipped items have none."""
    places = {item_id: place for place, item_id in enumerate(batch.items)}
    answered = [label for label in (read_labels(batch) if labels is None else labels) if label.skipped is None]
    return [
        _comparison(batch.items[label.item_id], label)
        for label in sorted(answered, key=lambda label: (places[label.item_id], label.labeler))
    ]


def _comparison(item: Item, label: Label) -> Comparison:
    return Comparison(
        prompt=item.origin.prompt,
        completions=item.responses,
        ranks=label.ranks,
        labeler_id=label.labeler,
        source_policy=item.origin.source_policy,
        finished=item.origin.finished,
        quality=label.quality,
        flags=label.flags,
        seconds=label.seconds,
    )


Parsed = TypeVar("Parsed", bound=BaseModel)


def _parsed(kind: type[Parsed], where: str, line: bytes) -> Parsed:
    with at(where):
        return kind.model_validate_json(line)
