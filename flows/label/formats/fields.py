"""Fields of objects that other tools wrote, and what they call labelers and moments."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from tasks.engine.errors import DataError
from tasks.records.labels import Item, Label, LabelBatch

Kind = TypeVar("Kind")


def field(where: str, fields: Any, name: str, kind: type[Kind]) -> Kind:
    """A field of one type.

    Raises:
        DataError: it is missing, or of another type.
    """
    value = fields.get(name) if isinstance(fields, Mapping) else None
    if not isinstance(value, kind):
        found = "nothing" if value is None else type(value).__name__
        raise DataError(f"{where}: found {found} as '{name}', expected {kind.__name__}")
    return value


def mapping(value: Any) -> Mapping[str, Any]:
    """An object; where there is none, an empty one."""
    return value if isinstance(value, Mapping) else {}


def item_of(where: str, batch: LabelBatch, item_id: str) -> Item:
    """The item of a batch.

    Raises:
        DataError: the batch has none of this id.
    """
    if item_id not in batch.items:
        raise DataError(f"{where}: found a label of {item_id!r}, which is no item of batch {batch.batch.id}")
    return batch.items[item_id]


def labeler_name(where: str, given: Any) -> str:
    """What a tool calls a person, as a name of ours: ``ann@example.org`` is ``ann-example.org``."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(given)).lstrip("._-")[:64] if given is not None else ""
    if not name:
        raise DataError(f"{where}: found no labeler, expected who labelled it")
    return name


def moment(where: str, text: Any, otherwise: datetime) -> datetime:
    """A point in time; without a zone it is UTC."""
    if text is None:
        return otherwise
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        raise DataError(f"{where}: found time {str(text)[:40]!r}, expected one such as 2026-01-02T12:00:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def seconds(where: str, given: Any) -> float | None:
    """How long it took, if the tool counted."""
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < float("inf"):
        raise DataError(f"{where}: found {given!r} seconds, expected a number from 0")
    return float(given)


def skipped(item: Item, labeler: str, reason: str, took: float | None, time: datetime) -> Label:
    """A label without a ranking."""
    return Label(
        item_id=item.item_id,
        labeler=labeler,
        ranks=[],
        quality=[],
        flags=[],
        skipped=reason,
        seconds=took,
        time=time,
    )


def by_response(shown: Sequence[Kind], order: Sequence[int]) -> list[Kind]:
    """What was given place by place, in the order of the item's responses."""
    places = {response: place for place, response in enumerate(order)}
    return [shown[places[response]] for response in range(len(order))]
