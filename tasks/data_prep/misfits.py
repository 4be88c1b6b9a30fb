"""Rows that the model cannot read are left out, and the tokens of all others counted."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data_prep.clean import Cleaner, Table
from tasks.data_prep.crew import Crew
from tasks.data_prep.lengths import Ruler
from tasks.data_prep.shelf import KINDS, Numbers, Shelf, table_in
from tasks.data_prep.split import AnySplit
from tasks.records.data import record_of
from tasks.records.records import Document, Record

OBJECTIONS = ("", "long_prompt", "long_response", "special_token")
Counts = NDArray[np.int32]


class Piece(NamedTuple):
    """Some rows of one file."""

    path: Path
    places: Numbers
    numbers: Numbers
    kind: type[Record]
    """As what they are read: a ranking may serve as a prompt."""


class MeasuredRows(NamedTuple):
    """What was measured of a piece."""

    numbers: Numbers
    prompt: Counts
    """Tokens of each prompt."""
    unknown: Counts
    """Of these, those that the vocabulary does not know."""
    responses: Counts
    """Tokens of each response."""
    of: Numbers
    """The row of each response."""
    unknown_of_responses: int
    objection: NDArray[np.int8]
    """Place of each row's in ``OBJECTIONS``."""


@dataclass(frozen=True)
class Measure:
    """Measures a piece."""

    ruler: Ruler

    def __call__(self, piece: Piece) -> MeasuredRows:
        """Nothing of the texts is kept."""
        rows = table_in(piece.path, piece.places).to_pylist()
        if piece.kind is Document:
            spelled = [3 * self.ruler.spells_special_token(row["text"]) for row in rows]
            none = np.empty(0, np.int32)
            return MeasuredRows(piece.numbers, none, none, none, none.astype(np.int64), 0, np.array(spelled, np.int8))
        records = [record_of(row, piece.kind) for row in rows]
        measured = self.ruler.measure(records)  # type: ignore[arg-type]
        objections = [self.ruler.objection(*both) or "" for both in zip(records, measured, strict=True)]  # type: ignore[arg-type]
        return MeasuredRows(
            piece.numbers,
            np.array([item.prompt for item in measured], np.int32),
            np.array([item.unknown_of_prompt for item in measured], np.int32),
            np.array([length for item in measured for length in item.responses], np.int32),
            np.repeat(piece.numbers, [len(item.responses) for item in measured]),
            sum(item.unknown_of_responses for item in measured),
            np.array([OBJECTIONS.index(rule) for rule in objections], np.int8),
        )


def drop_misfits(
    table: Table,
    documents: dict[AnySplit, Numbers],
    cleaner: Cleaner,
    shelf: Shelf,
    work: Measure,
    crew: Crew,
    count: Callable[[int], None] = lambda _: None,
) -> float:
    """Leave out what the model cannot read, in place, and take the numbers of what stays.

    Returns:
        The share of the tokens that the vocabulary does not know; a prompt that is in several rows counts once.
    """
    total = len(shelf.facts)
    prompt, unknown, objection = np.zeros(total, np.int32), np.zeros(total, np.int32), np.zeros(total, np.int8)
    responses, of, unknown_of_responses = [np.empty(0, np.int32)], [np.empty(0, np.int64)], 0
    for found in crew.each(work, _pieces(table, documents, shelf)):
        objection[found.numbers] = found.objection
        if len(found.prompt):
            prompt[found.numbers], unknown[found.numbers] = found.prompt, found.unknown
            responses.append(found.responses)
            of.append(found.of)
            unknown_of_responses += found.unknown_of_responses
        count(len(found.numbers))
    lengths, row_of = np.concatenate(responses), np.concatenate(of)
    measured = np.concatenate([np.empty(0, np.int64), *table.values()])
    once = measured[np.unique(shelf.facts["text"][measured], return_index=True)[1]]
    for (role, split), numbers in table.items():
        kept = _without_misfits(cleaner, role, split, numbers, objection)
        table[role, split] = kept
        stays = np.zeros(total, np.bool_)
        stays[kept] = True
        cleaner.rows[role, split].count_kept(shelf.facts["owner"][kept], prompt[kept], lengths[stays[row_of]])
    for split, numbers in documents.items():
        documents[split] = _without_misfits(cleaner, "documents", split, numbers, objection)
        cleaner.rows["documents", split].kept = len(documents[split])
    tokens = int(prompt[once].sum()) + int(lengths.sum())
    return (int(unknown[once].sum()) + unknown_of_responses) / max(1, tokens)


def _without_misfits(cleaner: Cleaner, role: str, split: str, numbers: Numbers, objection: NDArray[np.int8]) -> Numbers:
    found = objection[numbers]
    for rule in dict.fromkeys(found[found > 0].tolist()):  # in the order of their first rows
        cleaner.drop(role, split, OBJECTIONS[rule], numbers, found == rule)
    kept: Numbers = numbers[found == 0]
    return kept


def _pieces(table: Table, documents: dict[AnySplit, Numbers], shelf: Shelf) -> Iterator[Piece]:
    for (role, _), numbers in [*table.items(), *((("documents", split), rows) for split, rows in documents.items())]:
        for path, places, found in shelf.parts(numbers):
            yield Piece(path, places, found, KINDS[role])
