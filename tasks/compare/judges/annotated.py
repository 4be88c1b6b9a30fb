"""Pairs that several people have judged: what a judge is measured on before it is trusted.

One JSON object a line, plain or gzipped::

    {"prompt": "...", "completion_a": "...", "completion_b": "...", "labels": {"kim": "a", "lee": "b-slightly"}}

A label is a, a-slightly, tie, b-slightly or b; other fields are not read.
"""

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks.compare.judges.agreement import Agreement, Labels, between_annotators, with_annotators, with_majority
from tasks.engine.errors import DataError
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
    try:
        raw = path.expanduser().read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"cannot read {path} ({error}); give a JSONL file, plain or gzipped") from error
    found = [
        _annotated(json_row(path, number, line), f"{path}:{number}")
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    if not found:
        raise DataError(f"{path}: no pairs; write one object a line")
    return found


def json_row(path: Path, number: int, line: str) -> dict[str, Any]:
    """One line as an object."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{number}: not JSON ({error.msg}); write one object a line") from error
    if not isinstance(row, dict):
        raise DataError(f"{path}:{number}: found {type(row).__name__}; write one object a line")
    return row


def _annotated(row: dict[str, Any], place: str) -> AnnotatedPair:
    for name in ("prompt", "completion_a", "completion_b"):
        if not isinstance(row.get(name), str):
            raise DataError(f"{place}: '{name}' is {row.get(name)!r}; expected a text")
    labels = row.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise DataError(f"{place}: 'labels' is {labels!r}; expected one label an annotator")
    for annotator, label in labels.items():
        if label not in _MEANING:
            raise DataError(f"{place}: label {label!r} of {annotator}; expected one of {', '.join(_MEANING)}")
    pair = Pair(place, row["prompt"], row["completion_a"], row["completion_b"], ("a", "b"))
    return AnnotatedPair(pair, {annotator: _MEANING[label] for annotator, label in labels.items()})
