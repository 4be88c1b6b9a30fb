"""Labelling batches for tests."""

from pathlib import Path

from tasks.records.labels import PAPER_FORM, Batch, Item, LabelBatch, Origin, write_batch
from tasks.records.records import Prompt


def item(name: str, *, shared: bool = False, policies: int = 4, **changes: object) -> Item:
    origin = Origin(
        prompt=Prompt(prompt_id=name, owner_id="o", text=f"<user>{name}", metadata={"secret": "gold"}),
        source_policy=[f"policy-{n}" for n in range(policies)],
    )
    given = {
        "item_id": name,
        "text": f"what is {name} ?",
        "responses": [f"{name} answer {n}" for n in range(policies)],
        "shared": shared,
        "origin": origin,
    }
    return Item(**given | changes)  # type: ignore[arg-type]


def batch(**changes: object) -> Batch:
    given = {
        "id": "first",
        "form": PAPER_FORM,
        "instructions": "Be helpful.\n\nBe <b>honest</b>.",
        "labels_per_item": 1,
        "shared_share": 0.0,
    }
    return Batch(**given | changes)  # type: ignore[arg-type]


def written(home: Path, *items: Item, **changes: object) -> LabelBatch:
    return write_batch(home, batch(**changes), items or [item("salt"), item("iron"), item("moss", shared=True)])
