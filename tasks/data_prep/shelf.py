"""All rows on disk, in the order in which they were read, and of each its facts in memory: a row is known by its number."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.data_prep.deduplicate import Known
from tasks.data_prep.ends import take_off_ends
from tasks.data_prep.facts import FACTS, Facts, How, facts_of, facts_of_document
from tasks.data_prep.sources.formats.table import read_rows
from tasks.data_prep.sources.records import SourceRecords
from tasks.data_prep.sources.rows import Row
from tasks.data_prep.split import prompt_of
from tasks.language.plain_layout import Layout
from tasks.records.data import record_of, table_of
from tasks.records.records import Comparison, Demonstration, Document, Prompt, Record

ROWS = 1000
"""Of one file on the shelf: what is held at a time."""
KINDS: dict[str, type[Record]] = {
    "demonstrations": Demonstration,
    "comparisons": Comparison,
    "comparison_prompts": Prompt,
    "rl_prompts": Prompt,
    "test_prompts": Prompt,
    "documents": Document,
}
"""Role -> its records; those of other roles are few, and are not put on a shelf."""
Numbers = NDArray[np.int64]


class RowBatch(NamedTuple):
    """Some rows of one role as they were read; or records, where there were no rows."""

    number: int
    role: str
    rows: Sequence[tuple[str, Any]]
    """(place, fields)."""
    table: bool
    records: Sequence[Record]


class Shelved(NamedTuple):
    """What a batch became."""

    role: str
    path: Path
    facts: Facts
    rows: int
    """As many as were read."""
    read: int
    """Records before end tokens were taken off."""
    changed: int
    """Of which end tokens were taken off."""
    left_out: SourceRecords
    """Counts of rows that no record was made of."""


@dataclass(frozen=True)
class Shelver:
    """Makes records of rows, and puts them on the shelf."""

    folder: Path
    layout: Layout
    end: str
    how: How

    def __call__(self, batch: RowBatch) -> Shelved:
        """Raises: DataError: a row that cannot be read, with file and line."""
        source, role = SourceRecords(), batch.role
        setattr(source, role, list(batch.records))
        rows = (Row(fields, where, self.layout, table=batch.table) for where, fields in batch.rows)
        if batch.rows:
            read_rows(role, rows, source)
        read = len(getattr(source, role))
        changed = take_off_ends(source, self.end)[role]
        records = getattr(source, role)
        path = self.folder / f"{batch.number}.arrow"
        facts = self._write(path, records, source) if records else np.empty(0, FACTS)
        counts = SourceRecords(left_out=source.left_out, first_left_out=source.first_left_out)
        return Shelved(role, path, facts, len(batch.rows) or len(batch.records), read, changed, counts)

    def _write(self, path: Path, records: Sequence[Any], source: SourceRecords) -> Facts:
        table = table_of(records).append_column("where", pa.array([source.origin(record).where for record in records]))
        if isinstance(records[0], Document):
            found = [facts_of_document(record, self.how) for record in records]
        else:
            both = [facts_of(record, asked(record, source), self.how) for record in records]
            found = [facts for facts, _ in both]
            table = table.append_column("heads", pa.array([heads for _, heads in both], pa.list_(pa.uint64())))
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)
        return np.array(found, FACTS)


def asked(record: Prompt | Demonstration | Comparison, source: SourceRecords) -> str:
    """What a prompt is compared by: its turns before the layout, whose words all prompts share; a system message last."""
    ordered = sorted(source.origin(record).turns, key=lambda turn: turn.role == "system")
    return "\n".join(turn.content for turn in ordered) or prompt_of(record).text


class Shelf:
    """The rows of all roles that are cleaned and split; ``rest`` has the others, and what was noted on the way."""

    def __init__(self, rest: SourceRecords) -> None:
        self.rest = rest
        self.read: Counter[str] = Counter()
        self.changed: Counter[str] = Counter()
        self.facts: Facts = np.empty(0, FACTS)
        self._files: list[Path] = []
        self._ends = np.zeros(1, np.int64)
        self._roles: dict[str, list[Numbers]] = {}

    def fill(self, batches: Iterable[Shelved]) -> None:
        """Take up batches in the order in which they were read."""
        facts, ends = [self.facts], [0]
        for batch in batches:
            self.read[batch.role] += batch.read
            self.changed[batch.role] += batch.changed
            for (role, rule), where in batch.left_out.first_left_out.items():
                self.rest.leave_out(role, rule, where, batch.left_out.left_out[role][rule])
            if len(batch.facts):
                self._files.append(batch.path)
                facts.append(batch.facts)
                self._roles.setdefault(batch.role, []).append(np.arange(ends[-1], ends[-1] + len(batch.facts)))
                ends.append(ends[-1] + len(batch.facts))
        self.facts, self._ends = np.concatenate(facts), np.array(ends)

    def numbers(self, role: str) -> Numbers:
        """Of all rows of a role."""
        return np.concatenate([np.empty(0, np.int64), *self._roles.get(role, ())])

    def known(self) -> Known:
        """The requests of all rows by their beginnings; documents, which ask nothing, have none."""
        return Known.of(self.facts["key"], map(_heads, self._files))

    def parts(self, numbers: Numbers) -> Iterator[tuple[Path, Numbers, Numbers]]:
        """(file, places in it, numbers) of some rows, in their order."""
        file = np.searchsorted(self._ends, numbers, side="right") - 1
        for part in np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(file)) + 1):
            if len(part):
                found = numbers[part]
                yield self._files[file[part[0]]], found - self._ends[file[part[0]]], found

    def tables(self, numbers: Numbers) -> Iterator[pa.Table]:
        """Some rows, in their order, some at a time."""
        for path, places, _ in self.parts(numbers):
            yield table_in(path, places)

    def records(self, numbers: Numbers, kind: type[Record] | None = None) -> list[Any]:
        """Records of a few rows, of the kind of their role or of another one that is part of it."""
        kinds = (
            {number: KINDS[role] for role in self._roles for number in self.numbers(role).tolist()}
            if kind is None
            else {}
        )
        return [
            record_of(row, kind or kinds[number])
            for path, places, found in self.parts(numbers)
            for number, row in zip(found.tolist(), table_in(path, places).to_pylist(), strict=True)
        ]

    def where(self, number: int) -> str:
        """File and line of a row."""
        return self._cell("where", number)

    def owner(self, number: int) -> str:
        """Who wrote the prompt of a row."""
        return self._cell("owner_id", number)

    def _cell(self, column: str, number: int) -> str:
        path, place, _ = next(self.parts(np.array([number])))
        return str(table_in(path, place)[column][0].as_py())


def in_batches(role: str, rows: Iterable[Row], count: Iterator[int]) -> Iterator[RowBatch]:
    """Rows of one file, some at a time."""
    rows = iter(rows)
    while some := list(islice(rows, ROWS)):
        yield RowBatch(next(count), role, [(row.where, row.fields) for row in some], some[0].table, ())


def table_in(path: Path, places: Numbers) -> pa.Table:
    """Some rows of one file, in memory of their own."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all().take(places)


def _heads(path: Path) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
        if "heads" not in table.column_names:
            return np.empty(0, np.uint64), np.zeros(len(table), np.int64)
        heads = table["heads"].combine_chunks()
        return heads.flatten().to_numpy().copy(), np.diff(heads.offsets.to_numpy())
