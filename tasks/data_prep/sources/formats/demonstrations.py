"""Demonstrations: a request and the answer to it.

::

    {"prompt": ..., "response": ...}      both a text or chat messages; the answer may be called "completion"
    {"messages": [...]}, {"conversations": [...]}   the last answer is the response, the turns before it are the prompt
    {"instruction": ..., "input": ..., "output": ...}   Alpaca
    {"instruction": ..., "context": ..., "response": ...}   Dolly
    {"question": ..., "answer": ...}
    {"instruction": ..., "shots": [{"query": ..., "response": ...}, ...]}   K shots become K demonstrations
"""

from tasks.data_prep.deduplicate import normalise
from tasks.data_prep.few_shot import Shot, expand_few_shot
from tasks.data_prep.sources.formats.requests import chat_of, request_of
from tasks.data_prep.sources.messages import answered
from tasks.data_prep.sources.rows import Row
from tasks.data_prep.sources.values import kind_of
from tasks.data_prep.split import short_digest
from tasks.language.chat_layout import Turn
from tasks.records.records import Demonstration

ANSWERS = ("response", "completion", "output", "answer")


def demonstrations_of(row: Row) -> list[Demonstration]:
    """One demonstration, or one for each shot."""
    if "shots" in row.fields:
        return few_shot_of(row)
    answer = next((name for name in ANSWERS if row.has(name)), None)
    turns = chat_of(row)
    if turns is not None and answer is None:
        request, response = answered(turns)
    else:
        request, response = request_of(row), _response(row, answer or ANSWERS[0])
    return [Demonstration(prompt=row.prompt(request), response=response, labeler_id=row.labeler())]


def few_shot_of(row: Row) -> list[Demonstration]:
    """Every shot is asked in turn, with the others as examples before it."""
    instruction = row.text("instruction")
    given = row.value("shots")
    if not isinstance(given, list) or not all(isinstance(shot, dict) for shot in given) or len(given) < 2:
        raise row.error(f"'shots' is {kind_of(given)}", "a list of two or more {query, response}", "add examples")
    pairs = [Row(shot, f"{row.where}: shots[{place}]") for place, shot in enumerate(given)]
    shots = [Shot(pair.text("query"), pair.text("response")) for pair in pairs]
    # Siblings share an owner, so that no split sees another split's answer among its examples.
    owner = row.text("owner_id", default=f"labeler:{row.labeler()}:{short_digest(normalise(instruction))}")
    return [
        Demonstration(
            prompt=row.prompt([Turn("user", example.query)], owner=owner),
            response=example.response,
            labeler_id=row.labeler(),
        )
        for example in expand_few_shot(instruction, shots)
    ]


def _response(row: Row, name: str) -> str:
    response = row.text(name) if row.messages(name) is None else row.said(name)
    if not response.strip():
        raise row.error(f"'{name}' is empty", "a text", "fill it in or remove the row")
    return response
