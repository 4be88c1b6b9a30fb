"""Questions with right and wrong answers, in the layout of RewardBench 2: a JSON object a line."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.engine.errors import DataError
from tasks.records.json_lines import json_lines, problem

TIES = "Ties"
"""The subset with questions of several right answers."""


class QuestionRow(BaseModel):
    """One line; what else it has (``num_correct``, ``models``, ...) is not read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    chosen: list[str] = Field(min_length=1)
    """Right answers."""
    rejected: list[str] = Field(min_length=1)
    """Wrong ones."""
    subset: str = "all"


def read_questions(path: Path) -> list[QuestionRow]:
    """Every line of a file.

    Raises:
        DataError: no file, no row, or a row in another layout.
    """
    if not path.is_file():
        raise DataError(
            f"reward_questions: found no file {path}, expected a JSONL file in RewardBench 2's layout; correct the path"
        )
    rows = list(_rows(path))
    if not rows:
        raise DataError(f"{path}: found no question, expected at least one; see docs/evaluation.md for the layout")
    return rows


def _rows(path: Path) -> Iterator[QuestionRow]:
    for where, fields in json_lines(path, path.name):
        try:
            yield QuestionRow.model_validate(fields)
        except ValidationError as error:
            raise DataError(
                f"{where}: {problem(error)}; expected an object with id, prompt, chosen and rejected (lists of answers)"
            ) from None
