"""Our own rankings: ``rankings.jsonl``, which data preparation reads as comparisons.

One row per ranking: prompt, completions, ranks, labeler and models, and with them what else was marked. A skipped item has no
ranking, so it has no row.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from flows.label.formats.fields import field, item_of, labeler_name, moment, seconds
from tasks.engine.errors import DataError
from tasks.records.json_lines import at, json_lines
from tasks.records.labels import Item, Label, LabelBatch


def write(batch: LabelBatch, labels: Sequence[Label]) -> dict[str, str]:
    """Every ranking there is."""
    rows = [_row(batch.items[label.item_id], label) for label in labels if label.skipped is None]
    return {"rankings.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)}


def read(batch: LabelBatch, path: Path, now: datetime) -> list[Label]:
    """The rankings of a file; a row without ``item_id`` belongs to the item with its prompt and its completions.

    Raises:
        DataError: a row that is no ranking of an item of the batch.
    """
    return [_label(where, batch, row, now) for where, row in json_lines(path, str(path))]


def _row(item: Item, label: Label) -> dict[str, Any]:
    row: dict[str, Any] = {"prompt": item.text, "completions": item.responses, "ranks": label.ranks}
    row |= {"labeler": label.labeler, "models": item.origin.source_policy or None}
    row |= {"owner_id": item.origin.prompt.owner_id, "kind": item.origin.prompt.kind or None}
    row |= {"item_id": item.item_id, "quality": label.quality, "flags": label.flags, "seconds": label.seconds}
    row["time"] = label.time.isoformat()
    return {name: value for name, value in row.items() if value is not None}


def _label(where: str, batch: LabelBatch, row: Any, now: datetime) -> Label:
    completions, ranks = field(where, row, "completions", list), field(where, row, "ranks", list)
    if "item_id" in row:
        item = item_of(where, batch, field(where, row, "item_id", str))
    else:
        prompt = field(where, row, "prompt", str)
        same = [item for item in batch.items.values() if (item.text, item.responses) == (prompt, completions)]
        if not same:
            raise DataError(f"{where}: found no item of batch {batch.batch.id} with this prompt and these completions")
        item = same[0]
    if completions != item.responses:
        raise DataError(f"{where}: found other completions than those of {item.item_id} in batch {batch.batch.id}")
    count = len(item.responses)
    with at(where):
        return Label(
            item_id=item.item_id,
            labeler=labeler_name(where, row.get("labeler")),
            ranks=ranks,
            quality=row.get("quality", [None] * count),
            flags=row.get("flags", [[] for _ in range(count)]),
            skipped=None,
            seconds=seconds(where, row.get("seconds")),
            time=moment(where, row.get("time"), now),
        )
