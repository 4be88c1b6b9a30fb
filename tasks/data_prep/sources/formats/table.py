"""Role -> how a row of it is read; benchmarks have a module of their own."""

from collections.abc import Callable, Iterable
from typing import Any

from tasks.data_prep.sources.formats.comparisons import comparisons_of
from tasks.data_prep.sources.formats.demonstrations import demonstrations_of
from tasks.data_prep.sources.formats.documents import documents_of
from tasks.data_prep.sources.formats.requests import prompts_of
from tasks.data_prep.sources.records import LeftOut, ReadFrom, SourceRecords
from tasks.data_prep.sources.rows import Row
from tasks.records.json_lines import at

READERS: dict[str, Callable[[Row], list[Any]]] = {
    "demonstrations": demonstrations_of,
    "comparisons": comparisons_of,
    "rl_prompts": prompts_of,
    "documents": documents_of,
    "test_prompts": prompts_of,
    "toxicity_prompts": prompts_of,
}


def read_rows(role: str, rows: Iterable[Row], into: SourceRecords) -> None:
    """Add what the rows of one role hold, with the place of each, and count those that are of no use.

    Raises:
        DataError: a row that cannot be read, with file and line.
    """
    read, found = READERS[role], getattr(into, role)
    for row in rows:
        try:
            with at(row.where):
                records = read(row)
        except LeftOut as rule:
            into.leave_out(role, str(rule), row.where)
            continue
        found += records
        for record in records:
            known = getattr(record, "prompt", record)
            into.origins[id(known)] = ReadFrom(row.where, row.turns.get(id(known), ()))
