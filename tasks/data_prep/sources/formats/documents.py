"""Documents: ``{"text": "..."}``, pretraining text; ``source`` may name where it is from."""

from tasks.data_prep.sources.rows import Row
from tasks.records.records import Document


def documents_of(row: Row) -> list[Document]:
    """One document."""
    return [Document(text=row.text("text"), source=row.label("source") or "unknown")]
