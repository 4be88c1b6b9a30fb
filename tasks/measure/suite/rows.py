"""Rows of benchmark files, checked and put into the fields that the task files' layouts name.

A reader returns the fields of one row, or None for a row that the paper does not ask. Beyond the layout's fields a row
holds what scoring needs: ``choices`` and ``gold``, or ``answer`` (shown in examples) and ``references``.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.engine.errors import DataError
from tasks.records.json_lines import at, json_lines, text_problem

SUFFIXES = (".jsonl", ".jsonl.gz")
QUAC_CONTEXT = re.compile(r"Title: (?P<title>[^\n]+)\n+(?P<paragraph>.+?)(?P<turns>(?:\n\nQuestion: .*)?)", re.DOTALL)
CANNOT_ANSWER = "CANNOTANSWER"
Fields = dict[str, Any]


class TaskRow:
    """One JSON object of a file; wrong fields are named with file and line."""

    def __init__(self, fields: Any, where: str) -> None:
        self.where = where
        if not isinstance(fields, dict):
            raise DataError(f"{where}: found {type(fields).__name__}, expected a JSON object; correct the line")
        self.fields: Fields = fields

    def text(self, name: str) -> str:
        """A text that is not empty."""
        value = self.fields.get(name)
        if not isinstance(value, str) or not value.strip():
            raise self.error(name, value, "a text")
        return self._writable(name, value)

    def texts(self, name: str, *, least: int = 1) -> list[str]:
        """A list of texts."""
        value = self.fields.get(name)
        if not isinstance(value, list) or len(value) < least or not all(isinstance(text, str) for text in value):
            raise self.error(name, value, f"a list of at least {least} texts")
        return [self._writable(name, text) for text in value]

    def index(self, name: str, count: int) -> int:
        """A number from 0 to ``count`` - 1."""
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
            raise self.error(name, value, f"a number from 0 to {count - 1}")
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.fields.get(name)
        if not isinstance(value, bool):
            raise self.error(name, value, "true or false")
        return value

    def _writable(self, name: str, text: str) -> str:
        if (found := text_problem(text)) is not None:
            raise DataError(f"{self.where}: '{name}' {found}, expected text that UTF-8 can write; correct the row")
        return text.strip()

    def error(self, name: str, found: Any, expected: str) -> DataError:
        """What is wrong with one field."""
        shown = "nothing" if found is None else type(found).__name__ if not isinstance(found, int) else str(found)
        return DataError(f"{self.where}: '{name}' holds {shown}, expected {expected}; correct the row")


def hellaswag(row: TaskRow) -> Fields:
    """Activity label and context, four endings."""
    choices = row.texts("choices", least=2)
    return {"query": row.text("query"), "choices": choices, "gold": row.index("gold", len(choices))}


def lambada(row: TaskRow) -> Fields:
    """A passage and its last word."""
    return {"context": row.text("context"), "answer": row.text("target")}


def squadv2(row: TaskRow) -> Fields:
    """A paragraph and a question that it may not answer."""
    impossible = row.flag("is_impossible")
    references = [] if impossible else row.texts("answers")
    return {
        **{name: row.text(name) for name in ("title", "context", "question")},
        "references": references,
        "answer": references[0] if references else "Not in background.",
        "abstain": "Not in background.",
    }


def drop(row: TaskRow) -> Fields:
    """A passage and a question that takes counting or comparing."""
    references = row.texts("answers")
    return {
        "passage": row.text("passage"),
        "question": row.text("question"),
        "references": references,
        "answer": references[0],
    }


def quac(row: TaskRow) -> Fields:
    """A paragraph, the questions so far with their answers, and one question more."""
    found = QUAC_CONTEXT.fullmatch(row.text("context"))
    if found is None:
        raise row.error(
            "context", row.fields["context"], "'Title: ...', a paragraph, then 'Question:' / 'Answer:' turns"
        )
    turns = re.sub(r"\n\nQuestion: ", "\n\nQ: ", found["turns"])
    turns = re.sub(r"\nAnswer: ", "\n\nA: ", turns).replace(f"A: {CANNOT_ANSWER}", "A: I don't know.")
    unanswerable = row.flag("unanswerable")
    answer = row.text("answer")
    return {
        "title": found["title"].strip(),
        "paragraph": found["paragraph"].removesuffix(CANNOT_ANSWER).strip(),
        "turns": turns.strip() + "\n\n" if turns.strip() else "",
        "question": row.text("question"),
        "references": [] if unanswerable else [answer, *row.fields.get("aliases", [])],
        "answer": "I don't know." if unanswerable else answer,
        "abstain": "I don't know.",
    }


def rte(row: TaskRow) -> Fields:
    """Whether a sentence follows from a passage; label 1 says that it does."""
    return {
        "premise": row.text("premise"),
        "hypothesis": row.text("hypothesis").rstrip("."),
        "choices": ["No", "Yes"],
        "gold": row.index("label", 2),
    }


def sst(row: TaskRow) -> Fields:
    """A snippet of a film review; label 1 is positive."""
    return {"sentence": row.text("sentence"), "choices": ["negative", "positive"], "gold": row.index("label", 2)}


def wsc(row: TaskRow) -> Fields:
    """Two readings of a pronoun, and how the sentence goes on."""
    options = row.texts("context_options", least=2)
    return {"choices": options, "gold": row.index("gold", len(options)), "answer": row.text("continuation")}


def translation(row: TaskRow) -> Fields:
    """A sentence in French and in English."""
    english = row.text("en")
    return {"french": row.text("fr"), "answer": english, "references": [english]}


def tldr(row: TaskRow) -> Fields:
    """A post and its author's summary."""
    summary = row.text("reference")
    return {"post": row.text("post"), "answer": summary, "references": [summary]}


def truthfulqa(row: TaskRow) -> Fields:
    """A question about which people hold myths, with right and wrong answers."""
    one, many = (_labelled(row, name) for name in ("mc1_targets", "mc2_targets"))
    if sorted(one.values()).count(1) != 1:
        raise row.error("mc1_targets", None, "exactly one label 1")
    choices = list(dict.fromkeys([*many, *one]))
    return {
        "question": row.text("question"),
        "choices": choices,
        "gold": choices.index(next(text for text, label in one.items() if label)),
        "mc1_labels": [one.get(text, -1) for text in choices],
        "mc2_labels": [many.get(text, one.get(text, 0)) for text in choices],
        "references": row.texts("correct_answers"),
        "wrong": row.texts("incorrect_answers"),
        "answer": row.text("best_answer"),
        "abstain": "I have no comment.",
    }


def _labelled(row: TaskRow, name: str) -> dict[str, int]:
    inner = row.fields.get(name)
    targets = TaskRow(inner if isinstance(inner, dict) else {}, f"{row.where}: {name}")
    choices, labels = targets.texts("choices", least=2), targets.fields.get("labels")
    if not isinstance(labels, list) or len(labels) != len(choices) or not set(labels) <= {0, 1} or 1 not in labels:
        raise targets.error("labels", labels, f"{len(choices)} labels, 1 for true and 0 for false")
    return dict(zip(choices, labels, strict=True))


def winogender(row: TaskRow) -> Fields | None:
    """Two sentences that differ in a pronoun; the paper asks those with a named participant."""
    if row.text("participant") == "someone":
        return None
    return {"choices": [row.text("sentence_male"), row.text("sentence_female")], "gold": 0}


def crows_pairs(row: TaskRow) -> Fields:
    """Two sentences that differ in the group they speak of."""
    return {"choices": [row.text("sent_more"), row.text("sent_less")], "gold": 0}


READERS: dict[str, Callable[[TaskRow], Fields | None]] = {
    reader.__name__: reader
    for reader in (
        *(hellaswag, lambada, squadv2, drop, quac, rte, sst, wsc),
        *(translation, tldr, truthfulqa, winogender, crows_pairs),
    )
}
"""By the name that a task file gives in ``metadata.row``."""


def read_rows(path: Path, reader: str) -> list[tuple[int, Fields]]:
    """(line number, fields) of every row that is asked, in file order.

    Raises:
        DataError: a line that is no row of this kind, or no row at all.
    """
    found = []
    for where, row in json_lines(path, path.name):
        with at(where):
            fields = READERS[reader](TaskRow(row, where))
        if fields is not None:
            found.append((int(where.rpartition(":")[2]), fields))
    if not found:
        raise DataError(f"{path}: found no row to ask, expected at least one; correct the file or remove it")
    return found
