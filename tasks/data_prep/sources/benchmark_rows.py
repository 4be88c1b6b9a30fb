"""Benchmark rows of several well-known shapes, recognised by their fields."""

from collections.abc import Callable
from itertools import takewhile
from typing import Any, NamedTuple

from tasks.data_prep.sources.rows import Row
from tasks.data_prep.sources.values import kind_of
from tasks.records.records import BenchmarkItem


class RowForm(NamedTuple):
    """RowForm that a row must have, and how it becomes a question (None: this row cannot be asked)."""

    fields: frozenset[str]
    read: Callable[[Row], dict[str, Any] | None]


def _choice(row: Row, context: str, choices: list[str], right: str) -> dict[str, Any]:
    """A question with choices, the right one named by the field ``right``."""
    given = row.fields[right]
    index = int(given) if isinstance(given, str) and given.isdecimal() else given
    if not isinstance(index, int | float) or index not in range(len(choices)):
        shown = kind_of(given) if isinstance(given, list | dict | None) else repr(given)[:20]
        expected = f"the number of one of {len(choices)} choices, 0 for the first"
        raise row.error(f"'{right}' is {shown}", expected, "correct the row")
    return {"context": context, "choices": choices, "answer": int(index)}


def _plain_choice(row: Row) -> dict[str, Any]:
    return _choice(row, row.text("query"), row.texts("choices"), "gold")


def _choice_about_passage(row: Row) -> dict[str, Any]:
    context = f"{row.text('context')}\nQuestion: {row.text('question')}\nAnswer:"
    return _choice(row, context, row.texts("choices"), "gold")


def _context_options(row: Row) -> dict[str, Any] | None:
    """Two contexts that differ in a word, one continuation: what they share is asked, the rest are the choices."""
    options = row.texts("context_options")
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*options, strict=False))
    shared = "".join(letters[0] for letters in same).rpartition(" ")[0].rstrip()
    if not shared:
        return None
    choices = [f"{option[len(shared) :].strip()} {row.text('continuation').strip()}" for option in options]
    return _choice(row, shared, choices, "gold")


def _last_word(row: Row) -> dict[str, Any]:
    return {"context": row.text("context"), "references": [row.text("target")]}


def _question(row: Row) -> dict[str, Any] | None:
    references = [answer for answer in row.texts("answers") if answer.strip()]
    if not references:
        return None  # unanswerable by design
    passage = row.text("context", default=row.text("passage", default=""))
    question = f"Question: {row.text('question')}\nAnswer:"
    return {"context": f"{passage}\n{question}" if passage else question, "references": references}


def _entailment(row: Row) -> dict[str, Any]:
    context = f"{row.text('premise')}\nQuestion: {row.text('hypothesis')} True or False?\nAnswer:"
    return _choice(row, context, ["False", "True"], "label")


def _sentiment(row: Row) -> dict[str, Any]:
    context = f"{row.text('sentence')}\nQuestion: Is this sentence positive or negative?\nAnswer:"
    return _choice(row, context, ["negative", "positive"], "label")


def _one_true_answer(row: Row) -> dict[str, Any]:
    targets = Row(row.fields["mc1_targets"], f"{row.where}: mc1_targets")
    labels = targets.fields.get("labels")
    if not isinstance(labels, list) or labels.count(1) != 1:
        raise row.error("'mc1_targets.labels' does not hold exactly one 1", "one true choice", "correct the row")
    return {
        "context": f"Question: {row.text('question')}\nAnswer:",
        "choices": targets.texts("choices"),
        "answer": labels.index(1),
    }


SHAPES = (
    RowForm(frozenset({"query", "choices", "gold"}), _plain_choice),
    RowForm(frozenset({"context", "question", "choices", "gold"}), _choice_about_passage),
    RowForm(frozenset({"context_options", "continuation", "gold"}), _context_options),
    RowForm(frozenset({"context", "target"}), _last_word),
    RowForm(frozenset({"question", "mc1_targets"}), _one_true_answer),
    RowForm(frozenset({"question", "answers"}), _question),
    RowForm(frozenset({"premise", "hypothesis", "label"}), _entailment),
    RowForm(frozenset({"sentence", "label"}), _sentiment),
)
"""The first whose fields are all there is taken."""


def shape_of(row: Row) -> RowForm | None:
    """The shape of a row, None when it is not known."""
    return next((shape for shape in SHAPES if shape.fields <= row.fields.keys()), None)


def item_of(row: Row, shape: RowForm, task: str, number: int) -> BenchmarkItem | None:
    """A benchmark item; None for a row that cannot be asked.

    Raises:
        DataError: the row's fields are there but wrong.
        ValidationError: no question can be made of them.
    """
    read = shape.read(row)
    if read is None:
        return None
    form = "choice" if "choices" in read else "exact"
    return BenchmarkItem(item_id=f"{task}-{number:06d}", task=task, form=form, **read)
