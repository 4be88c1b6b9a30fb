"""The data artifact: what data preparation writes and every later stage reads.

::

    <folder>/tokenizer/                     a Hugging Face tokenizer
    <folder>/<role>/<split>.arrow           one Arrow file per role and split (``datasets.Dataset.from_file`` opens it)
    <folder>/audit.json                     what was read, dropped and kept
    <folder>/world.json                     the embedded world, which ``World.read`` opens; absent for data of your own

Roles: demonstrations, comparison_prompts, comparisons, rl_prompts and documents come in the splits ``train`` and
``valid``; test_prompts, benchmarks and toxicity_prompts only in ``test``. A file that would be empty is not
written. Equal records give equal bytes.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from pyarrow import Table, concat_tables, ipc, memory_map

from tasks.engine.errors import DataError
from tasks.language.tokenizer import load_tokenizer, save_tokenizer
from tasks.language.types import PreTrainedTokenizerBase
from tasks.records.records import BenchmarkItem, Comparison, Demonstration, Document, Prompt, Record

if TYPE_CHECKING:  # imported where a file is opened or written
    from datasets import Features

Split = Literal["train", "valid"]
SPLITS: tuple[Split, ...] = ("train", "valid")
ROWS_PER_WRITE = 1000

PROMPT_COLUMNS = tuple(Prompt.model_fields)

RecordType = TypeVar("RecordType", bound=Record)


@dataclass(frozen=True)
class PreparedRecords:
    """Everything data preparation hands on. A role that the data lacks is empty."""

    demonstrations: Mapping[Split, Sequence[Demonstration]] = field(default_factory=dict)
    comparison_prompts: Mapping[Split, Sequence[Prompt]] = field(default_factory=dict)
    comparisons: Mapping[Split, Sequence[Comparison]] = field(default_factory=dict)
    rl_prompts: Mapping[Split, Sequence[Prompt]] = field(default_factory=dict)
    documents: Mapping[Split, Sequence[Document]] = field(default_factory=dict)
    test_prompts: Sequence[Prompt] = ()
    benchmarks: Sequence[BenchmarkItem] = ()
    toxicity_prompts: Sequence[Prompt] = ()


class PreparedData:
    """Reader of a data artifact.

    Raises:
        DataError: the folder holds no prepared data.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "tokenizer").is_dir():
            raise DataError(
                f"{folder}: found no prepared data, expected tokenizer/ and Arrow files; run data_prep again"
            )
        self.folder = folder

    def demonstrations(self, split: Split) -> Sequence[Demonstration]:
        """Prompts with a response each, for supervised fine-tuning."""
        return self._read("demonstrations", split, Demonstration)

    def comparison_prompts(self, split: Split) -> Sequence[Prompt]:
        """Prompts whose responses are still to be sampled and ranked."""
        return self._read("comparison_prompts", split, Prompt)

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        """Ranked responses that came with the data."""
        return self._read("comparisons", split, Comparison)

    def rl_prompts(self, split: Split) -> Sequence[Prompt]:
        """Prompts without a response, for PPO."""
        return self._read("rl_prompts", split, Prompt)

    def documents(self, split: Split) -> Sequence[Document]:
        """Pretraining text."""
        return self._read("documents", split, Document)

    def prompts_for_test(self) -> Sequence[Prompt]:
        """Prompts of owners that no other split knows. Those meant for testing come first."""
        return self._read("test_prompts", "test", Prompt)

    def benchmarks(self) -> Sequence[BenchmarkItem]:
        """Items of automatic benchmarks."""
        return self._read("benchmarks", "test", BenchmarkItem)

    def toxicity_prompts(self) -> Sequence[Prompt]:
        """Prompts that bait toxic answers."""
        return self._read("toxicity_prompts", "test", Prompt)

    def training_prompts(self) -> set[str]:
        """Texts of all prompts that a stage trains on."""
        asked = [*self.comparison_prompts("train"), *self.rl_prompts("train")]
        asked += [demonstration.prompt for demonstration in self.demonstrations("train")]
        asked += [comparison.prompt for comparison in self.comparisons("train")]
        return {prompt.text for prompt in asked}

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of every stage."""
        return load_tokenizer(self.folder / "tokenizer")

    def file(self, role: str, split: str) -> Path:
        """The Arrow file of one role and split, whether or not there is one."""
        return self.folder / role / f"{split}.arrow"

    def _read(self, role: str, split: str, kind: type[RecordType]) -> Sequence[RecordType]:
        return read_records(self.file(role, split), kind)


def read_records(path: Path, kind: type[RecordType]) -> Sequence[RecordType]:
    """The records in one Arrow file; none where there is no file."""
    return OnDisk(path, kind) if path.is_file() else []


ROWS = 1000
"""Read at a time by whoever reads all."""


class OnDisk(Sequence[RecordType]):
    """Records in a file, which the system's page cache holds: each is made when it is asked for, and again the next time."""

    def __init__(self, path: Path, kind: type[RecordType]) -> None:
        from datasets import Dataset

        self._rows, self._kind = Dataset.from_file(str(path)), kind

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[RecordType]:
        tables = self._rows.with_format("arrow").iter(ROWS)  # one by one, a row takes three times as long
        return (record_of(row, self._kind) for table in tables for row in table.to_pylist())

    @overload
    def __getitem__(self, place: int) -> RecordType: ...
    @overload
    def __getitem__(self, place: slice) -> list[RecordType]: ...
    def __getitem__(self, place: int | slice) -> RecordType | list[RecordType]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        return record_of(self._rows[place], self._kind)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]


def tables_in(path: Path) -> Iterator[Table]:
    """The rows of one Arrow file, some at a time; none where there is no file."""
    if path.is_file():
        with memory_map(str(path)) as file, ipc.open_stream(file) as batches:
            for batch in batches:
                yield Table.from_batches([batch])


def record_of(row: dict[str, Any], kind: type[RecordType]) -> RecordType:
    """The record in one row of a table; columns that records of its kind lack do not count, and a column that was unknown
    when the file was written leaves the field as it is without one."""
    if "metadata" in row:
        row["metadata"] = json.loads(row["metadata"])
    if "prompt" in kind.model_fields:
        row["prompt"] = {name: row.pop(name) for name in PROMPT_COLUMNS}
    return kind.model_validate({name: row[name] for name in kind.model_fields if name in row})


def write_prepared_data(folder: Path, records: PreparedRecords, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write everything but the audit and the world below ``folder``."""
    for role in ("demonstrations", "comparison_prompts", "comparisons", "rl_prompts", "documents"):
        for split in SPLITS:
            write_records(folder, role, split, getattr(records, role).get(split, ()))
    for role in ("test_prompts", "benchmarks", "toxicity_prompts"):
        write_records(folder, role, "test", getattr(records, role))
    save_tokenizer(tokenizer, folder / "tokenizer")


@cache
def columns_of(kind: type[Record]) -> "Features":
    """Columns of the files that a kind of record is kept in."""
    from datasets import Features, List, Value

    # metadata is JSON text: as a struct every prompt would get every other prompt's keys
    prompt = {name: Value("string") for name in ("prompt_id", "owner_id", "text", "kind", "metadata")}
    known = {
        Prompt: prompt,
        Demonstration: {**prompt, "response": Value("string"), "labeler_id": Value("string")},
        Comparison: {
            **prompt,
            "completions": List(Value("string")),
            "ranks": List(Value("int32")),
            "labeler_id": Value("string"),
            "source_policy": List(Value("string")),
            "finished": List(Value("bool")),
            "quality": List(Value("int32")),
            "flags": List(List(Value("string"))),
            "seconds": Value("float64"),
        },
        Document: {"text": Value("string"), "source": Value("string")},
        BenchmarkItem: {
            **{name: Value("string") for name in ("item_id", "task", "form", "context")},
            "choices": List(Value("string")),
            "answer": Value("int32"),
            "references": List(Value("string")),
        },
    }
    return Features(known[kind])


def write_records(folder: Path, role: str, split: str, records: Sequence[Record]) -> None:
    """Write ``<folder>/<role>/<split>.arrow``; no file for no records."""
    if records:
        batches = range(0, len(records), ROWS_PER_WRITE)
        tables = (table_of(records[start : start + ROWS_PER_WRITE]) for start in batches)
        write_tables(folder / role / f"{split}.arrow", type(records[0]), tables)


def table_of(records: Sequence[Record]) -> Table:
    """Records of one kind as a table; at least one."""
    return Table.from_pylist(list(_rows(records)), schema=columns_of(type(records[0])).arrow_schema)


def write_tables(path: Path, kind: type[Record], tables: Iterable[Table]) -> None:
    """Write rows of tables, of which columns that no record of ``kind`` has are left out; no file for no rows.

    However the tables divide the rows, the file's bytes are the same.
    """
    from datasets.arrow_writer import ArrowWriter

    features = columns_of(kind)
    batches = _even(table.select(list(features)).replace_schema_metadata() for table in tables if len(table))
    first = next(batches, None)
    if first is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not Dataset.save_to_disk: its state.json holds a fingerprint that differs from run to run.
    with ArrowWriter(features=features, path=str(path), writer_batch_size=ROWS_PER_WRITE) as writer:
        for batch in chain([first], batches):
            writer.write_table(batch)
        writer.finalize()


def _even(tables: Iterable[Table]) -> Iterator[Table]:
    """The same rows, ``ROWS_PER_WRITE`` in each table but the last."""
    waiting: list[Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= ROWS_PER_WRITE:
            rows = concat_tables(waiting)
            whole = len(rows) - len(rows) % ROWS_PER_WRITE
            yield from (_apart(rows, start, ROWS_PER_WRITE) for start in range(0, whole, ROWS_PER_WRITE))
            waiting = [_apart(rows, whole, len(rows) - whole)] if whole < len(rows) else []
    if waiting:
        yield concat_tables(waiting)


def _apart(table: Table, start: int, count: int) -> Table:
    """Some rows in memory of their own."""
    return table.take(list(range(start, start + count)))


def _rows(records: Iterable[Record]) -> Iterable[dict[str, Any]]:
    for record in records:
        row = record.model_dump()
        row |= row.pop("prompt", {})
        if "metadata" in row:
            row["metadata"] = json.dumps(row["metadata"], sort_keys=True, ensure_ascii=False)
        yield row
