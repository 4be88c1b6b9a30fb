"""A submitted form as a label. The form names responses by the place at which they were shown."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tasks.engine.errors import DataError
from tasks.records.labels import Form, Item, Label

REASONS = (
    "The request is unclear or makes no sense",
    "The request contains personal data",
    "I would rather not read this",
    "I cannot judge these responses",
)
"""Why an item is skipped; one key each. Any other reason can be typed."""
REASON_LENGTH = 500
FIELD = re.compile(r"(quality|rank|flag)-([0-9]{1,3})")
Fields = Mapping[str, Sequence[str]]


def letter(place: int) -> str:
    """What the response at a place is called: A, B, C, ..."""
    return chr(ord("A") + place) if place < 26 else str(place + 1)


def dense(ranks: Sequence[int]) -> list[int]:
    """The same order without gaps: 1, 2, ..."""
    levels = sorted(set(ranks))
    return [levels.index(rank) + 1 for rank in ranks]


def label_of(
    fields: Fields, form: Form, item: Item, order: Sequence[int], labeler: str, seconds: float, now: float
) -> Label:
    """The label that a form means.

    Args:
        fields: of the form, each with its values.
        form: what was asked.
        item: about which.
        order: ``order[place]`` is the response shown at a place.
        labeler: who answered.
        seconds: how long it took.
        now: seconds since 1970.

    Raises:
        DataError: something is missing, or was not asked.
    """
    time = datetime.fromtimestamp(round(now, 3), UTC)
    if "skipped" in fields:
        reason = " ".join((_only(fields, "skipped") or _only(fields, "other_reason")).split())
        if not reason:
            raise DataError("an item is skipped for a reason; type one or choose one")
        if len(reason) > REASON_LENGTH:
            raise DataError(f"the reason has {len(reason)} characters, expected at most {REASON_LENGTH}; shorten it")
        nothing: dict[str, list[Any]] = {"ranks": [], "quality": [], "flags": []}
        return Label(item_id=item.item_id, labeler=labeler, **nothing, skipped=reason, seconds=seconds, time=time)
    count = len(order)
    for name in fields:
        if (match := FIELD.fullmatch(name)) and int(match[2]) >= count:
            raise DataError(f"found an answer about response {int(match[2]) + 1} of {count}; open the item again")
    ranks, quality = [0] * count, [0] * count
    flags: list[list[str]] = [[]] * count
    known = [flag.name for flag in form.flags]
    for place, response in enumerate(order):
        quality[response] = _level(fields, f"quality-{place}", form.quality_levels, f"the quality of {letter(place)}")
        ranks[response] = _level(fields, f"rank-{place}", count, f"the rank of {letter(place)}")
        marked = set(fields.get(f"flag-{place}", ()))
        if strange := sorted(marked - set(known)):
            raise DataError(f"found flag {strange[0][:40]!r}, which this form does not have; open the item again")
        flags[response] = [name for name in known if name in marked]
    return Label(
        item_id=item.item_id,
        labeler=labeler,
        ranks=dense(ranks),
        quality=list(quality),
        flags=flags,
        skipped=None,
        seconds=seconds,
        time=time,
    )


def fields_of(label: Label, order: Sequence[int]) -> dict[str, list[str]]:
    """The form's fields that mean a label, so that it can be corrected."""
    if label.skipped is not None:
        return {"other_reason": [label.skipped]}
    fields: dict[str, list[str]] = {}
    for place, response in enumerate(order):
        level = label.quality[response]
        fields[f"quality-{place}"] = [] if level is None else [str(level)]
        fields[f"rank-{place}"] = [str(label.ranks[response])]
        fields[f"flag-{place}"] = list(label.flags[response])
    return fields


def _only(fields: Fields, name: str) -> str:
    values = fields.get(name, ())
    if len(values) > 1:
        raise DataError(f"found {len(values)} values of {name}, expected one; open the item again")
    return values[0] if values else ""


def _level(fields: Fields, name: str, highest: int, what: str) -> int:
    text = _only(fields, name)
    if not text:
        raise DataError(f"{what} is missing; choose 1 to {highest}")
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= highest:
        raise DataError(f"{what} is {text[:20]!r}, expected 1 to {highest}")
    return int(text)
