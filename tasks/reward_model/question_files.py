"""Questions with right and wrong answers, in the layout of RewardBench 2: a JSON object a line."""

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.engine.errors import DataError
from tasks.records.json_lines import json_lines, problem

TIES = "Ties"
"""The subset with questions of several right answers."""
TWIN = re.compile(r"(?:ref|tied):.+")
"""What a question of that subset is called."""


class QuestionRow(BaseModel):
    """One line; what else it has (``num_correct``, ``models``, ...) is not read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(min_length=1, coerce_numbers_to_str=True)
    """In the subset of ties ``ref:N`` or ``tied:N``, each once."""
    prompt: str = Field(min_length=1)
    chosen: list[str] = Field(min_length=1)
    """Right answers."""
    rejected: list[str] = Field(min_length=1)
    """Wrong ones."""
    subset: str = "all"


def read_questions(path: Path) -> list[QuestionRow]:
    """Every line of a file.

    Raises:
        DataError: no file, no row, a row in another layout, or ties that have no twin.
    """
    if not path.is_file():
        raise DataError(
            f"reward_questions: found no file {path}, expected a JSONL file in RewardBench 2's layout; correct the path"
        )
    rows: list[QuestionRow] = []
    seen: dict[str, str] = {}
    for where, row in _rows(path):
        rows.append(row)
        if row.subset != TIES:
            continue
        if TWIN.fullmatch(row.id) is None or row.id in seen:
            found = f"a second id {row.id!r}, as {seen[row.id]}" if row.id in seen else f"the id {row.id!r}"
            raise DataError(
                f"{where}: found {found} in the subset {TIES}, expected ref:N for a question with one right answer and tied:N "
                "for its twin with several, each once; correct the id, or give the row another subset"
            )
        seen[row.id] = where
    if seen and not any(f"tied:{name.removeprefix('ref:')}" in seen for name in seen if name.startswith("ref:")):
        raise DataError(
            f"{path}: found no ref:N with its tied:N in the subset {TIES}, expected at least one such pair; add the twin, or "
            "give these rows another subset"
        )
    if not rows:
        raise DataError(f"{path}: found no question, expected at least one; see docs/evaluation.md for the layout")
    return rows


def _rows(path: Path) -> Iterator[tuple[str, QuestionRow]]:
    for where, fields in json_lines(path, path.name):
        try:
            yield where, QuestionRow.model_validate(fields)
        except ValidationError as error:
            raise DataError(
                f"{where}: {problem(error)}; expected an object with id, prompt, chosen and rejected (lists of answers)"
            ) from None
