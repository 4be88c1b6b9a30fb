"""Label Studio: ``tasks.json`` with items and annotations, and ``config.xml`` for the project's labelling interface.

A ranking is a ``Ranker`` with one ``Bucket`` per rank, so that ties share a bucket; quality is a ``Rating`` and flags are
``Choices`` of each response; a skipped item is a cancelled annotation. Responses are called by the letter of the place at which
they are shown, which is shuffled once for all labelers. Who labelled and when is kept with a result; where that is absent, it
is the annotation's own. Results of other controls are left out.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from flows.label.answers import letter
from flows.label.desk import shown_order
from flows.label.formats.fields import by_response, field, item_of, labeler_name, mapping, moment, seconds, skipped
from tasks.engine.errors import DataError
from tasks.records.json_lines import at, parse_json
from tasks.records.labels import Item, Label, LabelBatch

NAME = "label_studio"
UNRANKED = "_"
NO_REASON = "skipped in Label Studio"


def write(batch: LabelBatch, labels: Sequence[Label]) -> dict[str, str]:
    """The tasks with their annotations, and the interface that asks what our form asks."""
    by_item: defaultdict[str, list[Label]] = defaultdict(list)
    for label in labels:
        by_item[label.item_id].append(label)
    most = max(len(item.responses) for item in batch.items.values())
    tasks = [_task(item, by_item[item.item_id], most) for item in batch.items.values()]
    return {"tasks.json": json.dumps(tasks, indent=1, ensure_ascii=False) + "\n", "config.xml": _interface(batch, most)}


def read(batch: LabelBatch, path: Path, now: datetime) -> list[Label]:
    """The annotations of a JSON export.

    Raises:
        DataError: no such export, or an annotation that is not whole.
    """
    tasks = parse_json(path.read_bytes(), str(path))
    if not isinstance(tasks, list):
        raise DataError(f"{path}: found {type(tasks).__name__}, expected the list of tasks of a JSON export")
    labels = []
    for number, task in enumerate(tasks, start=1):
        where = f"{path}: task {number}"
        item = item_of(where, batch, field(where, field(where, task, "data", dict), "item_id", str))
        with at(where):
            labels += [_label(where, batch, item, given, now) for given in task.get("annotations") or []]
    return labels


def _task(item: Item, labels: Sequence[Label], most: int) -> dict[str, Any]:
    order = shown_order(NAME, item)
    texts = [item.responses[which] for which in order]
    data: dict[str, Any] = {"item_id": item.item_id, "request": item.text}
    data["responses"] = [
        {"id": letter(place), "title": letter(place), "body": text} for place, text in enumerate(texts)
    ]
    # The interface has a place for the most responses of any item; an empty text fills one that an item lacks.
    data |= {f"response_{letter(place)}": texts[place] if place < len(texts) else "" for place in range(most)}
    return {"data": data, "annotations": [_annotation(label, order) for label in labels]}


def _annotation(label: Label, order: Sequence[int]) -> dict[str, Any]:
    results = [] if label.skipped is None else [_result("reason", "request", "textarea", {"text": [label.skipped]})]
    if label.skipped is None:
        buckets: defaultdict[str, list[str]] = defaultdict(list)
        for place, which in enumerate(order):
            name, level = letter(place), label.quality[which]
            buckets[f"rank-{label.ranks[which]}"].append(name)
            if level is not None:
                results.append(_result(f"quality-{name}", f"response-{name}", "rating", {"rating": level}))
            if label.flags[which]:
                chosen = {"choices": list(label.flags[which])}
                results.append(_result(f"flags-{name}", f"response-{name}", "choices", chosen))
        results.append(_result("rank", "responses", "ranker", {"ranker": dict(sorted(buckets.items()))}))
    # Label Studio imports no annotation of somebody without an account; what it does not know, it keeps with a result.
    results[0]["meta"] = {"labeler": label.labeler, "time": label.time.isoformat()}
    return {
        "was_cancelled": label.skipped is not None,
        "lead_time": label.seconds,
        "result": results,
    }


def _result(name: str, about: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"from_name": name, "to_name": about, "type": kind, "value": value}


def _label(where: str, batch: LabelBatch, item: Item, given: Any, now: datetime) -> Label:
    values: dict[str, Any] = {}
    ours: dict[str, Any] = {}
    for result in field(where, given, "result", list):
        values[field(where, result, "from_name", str)] = field(where, result, "value", dict)
        ours |= mapping(result.get("meta"))
    person = given.get("completed_by")
    account = person.get("email") or person.get("id") if isinstance(person, Mapping) else person
    labeler = labeler_name(where, ours.get("labeler") or account)
    took, time = seconds(where, given.get("lead_time")), moment(where, ours.get("time") or given.get("created_at"), now)
    if given.get("was_cancelled") or "reason" in values:
        reason = " ".join(values.get("reason", {}).get("text") or [NO_REASON])
        return skipped(item, labeler, reason, took, time)
    if "rank" not in values:
        raise DataError(f"{where}: found no result of 'rank' by {labeler}, expected a ranking of every response")
    order = shown_order(NAME, item)
    names = [letter(place) for place in range(len(order))]
    texts = {flag.text: flag.name for flag in batch.batch.form.flags}
    chosen = [[texts.get(flag, flag) for flag in values.get(f"flags-{name}", {}).get("choices", [])] for name in names]
    return Label(
        item_id=item.item_id,
        labeler=labeler,
        ranks=by_response(_ranks(where, values["rank"].get("ranker"), names), order),
        quality=by_response([_level(where, values.get(f"quality-{name}", {})) for name in names], order),
        flags=by_response(chosen, order),
        skipped=None,
        seconds=took,
        time=time,
    )


def _ranks(where: str, ranker: Any, names: Sequence[str]) -> list[int]:
    """Bucket ``rank-2`` is rank 2; a list without buckets is an order without ties."""
    if isinstance(ranker, list):
        ranker = {f"rank-{rank}": [name] for rank, name in enumerate(ranker, start=1)}
    found: dict[str, int] = {}
    for bucket, members in (ranker if isinstance(ranker, Mapping) else {}).items():
        rank = bucket.removeprefix("rank-")
        if bucket != UNRANKED and rank.isdecimal():
            found |= dict.fromkeys(members, int(rank))
    if sorted(found) != sorted(names):
        raise DataError(
            f"{where}: found {', '.join(sorted(found)) or 'nothing'} in the buckets rank-1, rank-2, ..., expected "
            f"{', '.join(names)}; rank every response"
        )
    return [found[name] for name in names]


def _level(where: str, value: Mapping[str, Any]) -> int | None:
    level = value.get("rating")
    if level is not None and (isinstance(level, bool) or not isinstance(level, int)):
        raise DataError(f"{where}: found rating {level!r}, expected a whole number")
    return level


def _interface(batch: LabelBatch, most: int) -> str:
    form, lines = batch.batch.form, ["<View>", f"  <Header value={quoteattr('Request')}/>"]
    lines.append('  <Text name="request" value="$request"/>')
    for name in map(letter, range(most)):
        lines += [f'  <Header value="Response {name}"/>', f'  <Text name="response-{name}" value="$response_{name}"/>']
        about = f'toName="response-{name}"'
        lines.append(f'  <Rating name="quality-{name}" {about} maxRating="{form.quality_levels}"/>')
        lines.append(f'  <Choices name="flags-{name}" {about} choice="multiple">')
        lines += [f"    <Choice alias={quoteattr(flag.name)} value={quoteattr(flag.text)}/>" for flag in form.flags]
        lines.append("  </Choices>")
    lines += ['  <List name="responses" value="$responses" title="To rank"/>']
    lines.append('  <Ranker name="rank" toName="responses">')
    lines += [f'    <Bucket name="rank-{rank}" title="Rank {rank}"/>' for rank in range(1, most + 1)]
    lines += ["  </Ranker>", '  <TextArea name="reason" toName="request" placeholder="Why this item is skipped"/>']
    return "\n".join([*lines, "</View>", ""])
