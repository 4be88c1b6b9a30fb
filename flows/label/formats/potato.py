"""Potato: ``items.jsonl`` and ``config.yaml`` for its server, and ``annotations.jsonl``, its export, with the labels.

A ranking is the text ``B,D=A,C``: from best to worst, ``=`` between equals. It is an order without gaps between ranks.
Responses are called by the letter of the place at which they are shown, which is shuffled once for all labelers. Potato
offers every item the letters of the item with the most responses; what it ranks beyond an item's own is left out.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from flows.label.answers import letter
from flows.label.desk import shown_order
from flows.label.formats.fields import by_response, field, item_of, labeler_name, mapping, moment, seconds, skipped
from tasks.engine.errors import DataError
from tasks.records.json_lines import at, json_lines
from tasks.records.labels import Item, Label, LabelBatch

NAME = "potato"
NOT_CHOSEN = (None, False, "", "false", "False", "0", 0)


def write(batch: LabelBatch, labels: Sequence[Label]) -> dict[str, str]:
    """The items, the server's settings, and the labels."""
    items = [{"id": item.item_id, "text": _text(item)} for item in batch.items.values()]
    return {
        "items.jsonl": _lines(items),
        "config.yaml": yaml.safe_dump(_settings(batch), sort_keys=False, allow_unicode=True, width=120),
        "annotations.jsonl": _lines(_instance(batch.items[label.item_id], label) for label in labels),
    }


def read(batch: LabelBatch, path: Path, now: datetime) -> list[Label]:
    """The labels of an ``annotations.jsonl``, or of the ``annotated_instances.jsonl`` of older releases.

    Raises:
        DataError: a line that is no label of the batch.
    """
    labels = []
    for where, line in json_lines(path, str(path)):
        name = "instance_id" if isinstance(line, Mapping) and "instance_id" in line else "id"
        item = item_of(where, batch, field(where, line, name, str))
        with at(where):
            labels.append(_label(where, batch, item, line, now))
    return labels


def rank_order(ranks: Sequence[int]) -> str:
    """The ranks of A, B, C, ... as Potato writes them."""
    groups = [[letter(place) for place, rank in enumerate(ranks) if rank == level] for level in sorted(set(ranks))]
    return ",".join("=".join(group) for group in groups)


def ranks_in(where: str, order: str, count: int) -> list[int]:
    """The ranks of A, B, C, ...; equals share one, and the next group has the next.

    Raises:
        DataError: a response is missing, or is there twice.
    """
    groups = [re.split(r"\s*=\s*", group.strip()) for group in order.split(",")]
    names = [letter(place) for place in range(count)]
    own = [kept for group in groups if (kept := [name for name in group if name in names])]
    found = {name: rank for rank, group in enumerate(own, start=1) for name in group}
    if sorted(name for group in own for name in group) != sorted(names):
        raise DataError(f"{where}: found the order {order[:60]!r}, expected each of {', '.join(names)} once")
    return [found[name] for name in names]


def _text(item: Item) -> str:
    # Potato shows the text as HTML.
    parts = [("Request", item.text)]
    parts += [(letter(place), item.responses[which]) for place, which in enumerate(shown_order(NAME, item))]
    return "".join(f"<p><b>{title}</b><br>{html.escape(text).replace(chr(10), '<br>')}</p>" for title, text in parts)


def _settings(batch: LabelBatch) -> dict[str, Any]:
    form = batch.batch.form
    names = [letter(place) for place in range(max(len(item.responses) for item in batch.items.values()))]
    schemes: list[dict[str, Any]] = []
    for name in names:
        quality = {"annotation_type": "likert", "name": f"quality_{name}", "description": f"Overall quality of {name}"}
        schemes.append(quality | {"size": form.quality_levels, "min_label": "worst", "max_label": "best"})
        marks = {"annotation_type": "multiselect", "name": f"flags_{name}", "description": f"What applies to {name}"}
        schemes.append(marks | {"labels": [{"name": flag.name, "tooltip": flag.text} for flag in form.flags]})
    ranking = {"annotation_type": "ranking", "name": "ranking", "description": "Rank all, best first"}
    schemes.append(ranking | {"labels": names, "allow_ties": True})
    schemes.append({"annotation_type": "text", "name": "skip", "description": "Why this item is skipped, if it is"})
    return {
        "annotation_task_name": batch.batch.id,
        "data_files": ["items.jsonl"],
        "item_properties": {"id_key": "id", "text_key": "text"},
        "output_annotation_dir": "annotation_output",
        "output_annotation_format": "jsonl",
        "annotation_schemes": schemes,
    }


def _instance(item: Item, label: Label) -> dict[str, Any]:
    given: dict[str, dict[str, str]] = {}
    if label.skipped is not None:
        given["skip"] = {"text_box": label.skipped}
    else:
        order = shown_order(NAME, item)
        given["ranking"] = {"rank_order": rank_order([label.ranks[which] for which in order])}
        for place, which in enumerate(order):
            level = label.quality[which]
            if level is not None:
                given[f"quality_{letter(place)}"] = {str(level): str(level)}
            if label.flags[which]:
                given[f"flags_{letter(place)}"] = {name: name for name in label.flags[which]}
    took = {"time_spent": label.seconds, "timestamp": label.time.isoformat()}
    return {"user_id": label.labeler, "instance_id": item.item_id, "labels": given, "behavioral_data": took}


def _label(where: str, batch: LabelBatch, item: Item, line: Mapping[str, Any], now: datetime) -> Label:
    labeler = labeler_name(where, line.get("user_id"))
    given = field(where, line, "label_annotations" if "label_annotations" in line else "labels", dict)
    behaviour = mapping(line.get("behavioral_data"))
    took, time = seconds(where, behaviour.get("time_spent")), moment(where, behaviour.get("timestamp"), now)
    if reason := "".join(map(str, mapping(given.get("skip")).values())).strip():
        return skipped(item, labeler, reason, took, time)
    shown = shown_order(NAME, item)
    names = [letter(place) for place in range(len(shown))]
    texts = {flag.text: flag.name for flag in batch.batch.form.flags}
    marks = [mapping(given.get(f"flags_{name}")) for name in names]
    chosen = [[texts.get(flag, flag) for flag, value in mark.items() if value not in NOT_CHOSEN] for mark in marks]
    order = field(where, given.get("ranking"), "rank_order", str)
    return Label(
        item_id=item.item_id,
        labeler=labeler,
        ranks=by_response(ranks_in(where, order, len(shown)), shown),
        quality=by_response([_level(where, mapping(given.get(f"quality_{name}"))) for name in names], shown),
        flags=by_response(chosen, shown),
        skipped=None,
        seconds=took,
        time=time,
    )


def _level(where: str, scale: Mapping[str, Any]) -> int | None:
    values = [str(value) for value in scale.values() if value not in (None, "")]
    if not values:
        return None
    if len(values) > 1 or not values[0].isdecimal():
        raise DataError(f"{where}: found quality {', '.join(values)[:40]!r}, expected one whole number")
    return int(values[0])


def _lines(rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
