"""End tokens that exports spell at the end of a text: they are taken off, because training puts one there anyway."""

from typing import Any

from tasks.data_prep.sources.records import SourceRecords

TEXTS = {"demonstrations": "response", "comparisons": "completions", "documents": "text"}
"""Role -> the field with the texts that an end token closes."""


def without_end(text: str, end: str) -> str:
    """A text without the end tokens that close it; one that is not closed so stays as it is."""
    while text.rstrip().endswith(end):
        text = text.rstrip().removesuffix(end)
    return text


def take_off_ends(source: SourceRecords, end: str) -> None:
    """Take the end token off every response and document; that is noted, and what is empty then is left out."""
    for role, field in TEXTS.items():
        records = getattr(source, role)
        kept: list[Any] = []
        changed = 0
        for record in records:
            found = getattr(record, field)
            text = without_end(found, end) if isinstance(found, str) else [without_end(item, end) for item in found]
            changed += text != found
            if isinstance(text, str) and not text.strip():
                source.leave_out(role, "empty_response", source.origin(record).where)
            elif text != found:
                kept.append(record.model_copy(update={field: text}))
                source.origins[id(kept[-1])] = source.origin(record)
            else:
                kept.append(record)
        if changed:
            source.notices.append(
                f"{role}: {changed} of {len(records)} rows end with {end}, which is taken off; training puts one there anyway"
            )
        setattr(source, role, kept)
