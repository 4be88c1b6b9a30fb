"""Pairs that several people have judged: what a judge is measured on before it is trusted.

One JSON object a line, plain or gzipped::

    {"prompt": "...", "completion_a": "...", "completion_b": "...", "labels": {"kim": "a", "lee": "b-slightly"}}

A label is a, a-slightly, tie, b-slightly or b; other fields are not read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks.compare.judges.agreement import Agreement, Labels, between_annotators, with_annotators, with_majority
from tasks.engine.errors import DataError
from tasks.records.json_lines import at, json_lines, text_problem
from tasks.results.judge import FIRST, SECOND, TIE, OrderEffects, Pair, PairJudge, Question, Verdict
from tasks.results.win_rate import Resampling

_MEANING = {"a": FIRST, "a-slightly": FIRST, "tie": TIE, "b-slightly": SECOND, "b": SECOND}


class AnnotatedPair(NamedTuple):
    """Two responses with people's labels."""

    pair: Pair
    labels: Labels
    """1 the first response is better, 0 a tie, -1 the second."""


class JudgeAgreement(NamedTuple):
    """How far a judge agrees with people, beside how far people agree with each other."""

    people: Agreement
    each: Agreement
    """The judge with each person's labels."""
    majority: Agreement
    """The judge with the majority of each pair's people."""
    orders: OrderEffects


def longer_response(questions: Sequence[Question]) -> list[Verdict]:
    """The judge that every judge must beat: it prefers the longer response and reads nothing."""
    return [
        (len(question.first) > len(question.second)) - (len(question.first) < len(question.second))
        for question in questions
    ]


def measure(judge: PairJudge, items: Sequence[AnnotatedPair], how: Resampling) -> JudgeAgreement:
    """Let a judge decide the pairs and compare it with people; a win in one order and a tie in the other is a win.

    Raises:
        JudgeError: the judge left too many pairs undecided.
    """
    outcomes, orders = judge.judge([item.pair for item in items])
    verdicts = [None if outcome != outcome else float(outcome) - 0.5 for outcome in outcomes]
    labels = [item.labels for item in items]
    return JudgeAgreement(
        people=between_annotators(labels, how),
        each=with_annotators(verdicts, labels, how),
        majority=with_majority(verdicts, labels, how),
        orders=orders,
    )


def read_annotated(path: Path) -> list[AnnotatedPair]:
    """Every line of a file of annotated pairs.

    Raises:
        DataError: no file, nothing in it, or a line that is no annotated pair, with its number.
    """
    path = path.expanduser()
    if not path.is_file():
        there = "it is a folder" if path.is_dir() else "there is no such file"
        raise DataError(f"cannot read {path} ({there}); give a JSONL file, plain or gzipped")
    found = []
    for place, row in json_lines(path, str(path)):
        with at(place):
            found.append(_annotated(row, place))
    if not found:
        raise DataError(f"{path}: no pairs; write one object a line")
    return found


def _annotated(row: Any, place: str) -> AnnotatedPair:
    if not isinstance(row, dict):
        raise DataError(f"{place}: found {type(row).__name__}; write one object a line")
    for name in ("prompt", "completion_a", "completion_b"):
        text = row.get(name)
        if not isinstance(text, str):
            raise DataError(
                f"{place}: '{name}' is {'missing' if text is None else type(text).__name__}; expected a text"
            )
        if (found := text_problem(text)) is not None:
            raise DataError(f"{place}: '{name}' {found}; expected text that UTF-8 can write")
    labels = row.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise DataError(f"{place}: 'labels' is {labels!r}; expected one label an annotator")
    for annotator, label in labels.items():
        if not isinstance(label, str) or label not in _MEANING:
            raise DataError(f"{place}: label {label!r} of {annotator}; expected one of {', '.join(_MEANING)}")
    pair = Pair(place, row["prompt"], row["completion_a"], row["completion_b"], ("a", "b"))
    return AnnotatedPair(pair, {annotator: _MEANING[label] for annotator, label in labels.items()})
