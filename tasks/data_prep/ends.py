"""End tokens that exports spell at the end of a text: they are taken off, because training puts one there anyway."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from tasks.data_prep.sources.records import SourceRecords

TEXTS = {"demonstrations": "response", "comparisons": "completions", "documents": "text"}
"""Role -> the field with the texts that an end token closes."""


def without_end(text: str, end: str) -> str:
    """A text without the end tokens that close it; one that is not closed so stays as it is."""
    while text.rstrip().endswith(end):
        text = text.rstrip().removesuffix(end)
    return text


def take_off_ends(source: SourceRecords, end: str) -> Counter[str]:
    """Take the end token off every response and document; what is empty then is left out.

    Returns:
        Role -> rows that changed.
    """
    changed: Counter[str] = Counter()
    for role, field in TEXTS.items():
        kept: list[Any] = []
        for record in getattr(source, role):
            found = getattr(record, field)
            text = without_end(found, end) if isinstance(found, str) else [without_end(item, end) for item in found]
            changed[role] += text != found
            if isinstance(text, str) and not text.strip():
                source.leave_out(role, "empty_response", source.origin(record).where)
            elif text != found:
                kept.append(record.model_copy(update={field: text}))
                source.origins[id(kept[-1])] = source.origin(record)
            else:
                kept.append(record)
        setattr(source, role, kept)
    return changed


def notices_of_ends(changed: Mapping[str, int], read: Mapping[str, int], end: str) -> list[str]:
    """What to say of texts that end tokens were taken off."""
    return [
        f"{role}: {changed[role]} of {read[role]} rows end with {end}, which is taken off; training puts one there anyway"
        for role in TEXTS
        if changed[role]
    ]
