"""Labels in the files of Label Studio and Potato, and in our own rankings files."""

import json
import random
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from flows.label.answers import dense
from flows.label.desk import shown_order
from flows.label.formats import FORMATS, export_labels, import_labels
from flows.label.formats.potato import rank_order, ranks_in
from tasks.data_prep.sources.formats.comparisons import comparisons_of
from tasks.data_prep.sources.rows import Row
from tasks.engine.errors import DataError
from tasks.records.labels import PAPER_FORM, Label, LabelBatch, append_label, read_labels
from tests.unit.label.batches import item, written

FILES = {"label_studio": "tasks.json", "potato": "annotations.jsonl", "rankings": "rankings.jsonl"}
NOON = datetime(2026, 1, 2, 12, 0, 0, 250_000, tzinfo=UTC)
FLAGS = [flag.name for flag in PAPER_FORM.flags]


def batch_of_all_sizes(home: Path) -> LabelBatch:
    items = [item(f"i{count}/größe <b>", policies=count) for count in range(2, 10)]
    return written(home, *items)


def random_label(batch: LabelBatch, item_id: str, labeler: str, rng: random.Random) -> Label:
    count = len(batch.items[item_id].responses)
    nothing = rng.random() < 0.2
    return Label(
        item_id=item_id,
        labeler=labeler,
        ranks=[] if nothing else dense([rng.randint(1, count) for _ in range(count)]),
        quality=[] if nothing else [rng.choice([None, 1, 4, 7]) for _ in range(count)],
        flags=[] if nothing else [[name for name in FLAGS if rng.random() < 0.2] for _ in range(count)],
        skipped="not clear, <b>at all</b>" if nothing else None,
        seconds=rng.choice([None, 0.0, 12.25]),
        time=NOON + timedelta(seconds=rng.randint(0, 10**6)),
    )


def filled(home: Path, seed: int) -> LabelBatch:
    batch, rng = batch_of_all_sizes(home), random.Random(seed)
    for labeler in ("ann", "b.o-b"):
        for item_id in batch.items:
            append_label(batch, random_label(batch, item_id, labeler, rng))
    return batch


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_everything_comes_back(tmp_path: Path, name: str, seed: int) -> None:
    batch = filled(tmp_path / "one", seed)
    export_labels(name, batch, tmp_path / "out")
    other = batch_of_all_sizes(tmp_path / "two")
    expected = [label for label in read_labels(batch) if name != "rankings" or label.skipped is None]
    assert import_labels(name, other, tmp_path / "out" / FILES[name]) == (len(expected), 0)
    assert read_labels(other) == expected
    assert import_labels(name, other, tmp_path / "out" / FILES[name]) == (0, len(expected))
    export_labels(name, other, tmp_path / "again")
    for path in (tmp_path / "out").iterdir():
        if name != "rankings" or path.name == FILES[name]:
            assert (tmp_path / "again" / path.name).read_text() == path.read_text()


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_labelers_of_other_tools_are_blind_too(tmp_path: Path, name: str) -> None:
    for path in export_labels(name, batch_of_all_sizes(tmp_path), tmp_path / "out"):
        assert "policy-" not in path.read_text() and "secret" not in path.read_text()


def test_gaps_between_ranks_stay_in_buckets(tmp_path: Path) -> None:
    batch = written(tmp_path / "one")
    given = Label(
        item_id="salt",
        labeler="ann",
        ranks=[1, 4, 2, 2],
        quality=[None] * 4,
        flags=[[]] * 4,
        skipped=None,
        seconds=1.0,
        time=NOON,
    )
    append_label(batch, given)
    export_labels("label_studio", batch, tmp_path)
    other = written(tmp_path / "two")
    import_labels("label_studio", other, tmp_path / "tasks.json")
    assert read_labels(other) == [given]


def test_an_export_of_label_studio(tmp_path: Path) -> None:
    """As Label Studio 1 exports it: ids of people, other controls, ties in a bucket, a cancelled annotation."""
    batch = written(tmp_path, item("salt", policies=3), item("iron", policies=2))
    order = shown_order("label_studio", batch.items["salt"])

    def result(name: str, about: str, kind: str, value: object) -> dict[str, object]:
        return {"id": "x", "from_name": name, "to_name": about, "type": kind, "origin": "manual", "value": value}

    ranked = [
        result("rank", "responses", "ranker", {"ranker": {"rank-1": ["B"], "rank-2": ["A", "C"], "_": []}}),
        result("quality-B", "response-B", "rating", {"rating": 6}),
        result("flags-A", "response-A", "choices", {"choices": ["Hallucination", "opinion"]}),
        result("colour", "request", "choices", {"choices": ["red"]}),
    ]
    about = {"id": 7, "created_at": "2026-01-02T12:00:00.250000Z", "lead_time": 9.5, "was_cancelled": False}
    tasks = [
        {"id": 1, "data": {"item_id": "salt"}, "annotations": [about | {"completed_by": 3, "result": ranked}]},
        {
            "id": 2,
            "data": {"item_id": "iron"},
            "annotations": [
                about | {"completed_by": {"id": 4, "email": "bob@example.org"}, "was_cancelled": True, "result": []},
                about
                | {
                    "completed_by": {"id": 5},
                    "result": [result("rank", "responses", "ranker", {"ranker": ["B", "A"]})],
                },
            ],
        },
    ]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    assert import_labels("label_studio", batch, tmp_path / "export.json") == (3, 0)
    three, five, bob = read_labels(batch)
    assert (three.labeler, three.seconds, three.time) == ("3", 9.5, NOON)
    assert [three.ranks[which] for which in order] == [2, 1, 2]
    assert [three.quality[which] for which in order] == [None, 6, None]
    assert [three.flags[which] for which in order] == [["hallucination", "opinion"], [], []]
    assert [five.ranks[which] for which in shown_order("label_studio", batch.items["iron"])] == [2, 1]
    assert (bob.labeler, bob.skipped) == ("bob-example.org", "skipped in Label Studio")


def test_the_interface_of_label_studio_is_xml_with_every_control(tmp_path: Path) -> None:
    export_labels("label_studio", batch_of_all_sizes(tmp_path), tmp_path / "out")
    root = ElementTree.fromstring((tmp_path / "out" / "config.xml").read_text())
    names = [element.get("name") for element in root.iter() if element.get("name")]
    assert len(names) == len(set(names)) == 1 + 3 * 9 + 2 + 9 + 1
    about = {element.get("toName") for element in root.iter()} - {None}
    assert about <= set(names)
    data = json.loads((tmp_path / "out" / "tasks.json").read_text())[0]["data"]
    asked = {value[1:] for element in root.iter() if (value := element.get("value") or "").startswith("$")}
    assert asked <= set(data)


@pytest.mark.parametrize(
    ("ranks", "order"),
    [([3, 1, 4, 2], "B,D,A,C"), ([2, 1, 3, 2], "B,A=D,C"), ([1, 1], "A=B"), ([4, 1, 4, 2], "B,D,A=C")],
)
def test_the_order_of_potato(ranks: list[int], order: str) -> None:
    assert rank_order(ranks) == order
    assert ranks_in("x", order, len(ranks)) == dense(ranks)


def test_an_order_of_potato_as_people_leave_it() -> None:
    assert ranks_in("x", "B, D = A ,C", 4) == [2, 1, 3, 2]
    assert ranks_in("x", "B,D=A,C", 3) == [2, 1, 3]  # an item without D
    for order in ("B,A", "A,A,B,C", "", "A,B,,B,C"):
        with pytest.raises(DataError, match="expected each of A, B, C once"):
            ranks_in("x", order, 3)


def test_a_line_that_potato_2_12_exported(tmp_path: Path) -> None:
    batch = written(tmp_path, item("salt"))
    order = shown_order("potato", batch.items["salt"])
    line = (
        '{"instance_id": "salt", "user_id": "zoe@example.org", "labels": {"ranking": {"rank_order": "B,D,A,C"}, '
        '"quality_A": {"5": "5"}, "flags_B": {"opinion": "opinion", "violent": "violent"}}, "spans": {}, "links": {}}'
    )
    (tmp_path / "annotations.jsonl").write_text(line + "\n")
    assert import_labels("potato", batch, tmp_path / "annotations.jsonl") == (1, 0)
    [label] = read_labels(batch)
    assert [label.ranks[which] for which in order] == [3, 1, 4, 2]
    assert [label.quality[which] for which in order] == [5, None, None, None]
    assert [sorted(label.flags[which]) for which in order] == [[], ["opinion", "violent"], [], []]
    assert label.labeler == "zoe-example.org"


def test_a_line_of_an_older_potato(tmp_path: Path) -> None:
    batch = written(tmp_path, item("salt", policies=3))
    order = shown_order("potato", batch.items["salt"])
    given = {
        "ranking": {"rank_order": "C,A=B"},
        "quality_A": {"5": "5"},
        "flags_B": {"opinion": "true", "violent": "false", "Hallucination": True},
        "skip": {"text_box": ""},
    }
    line = {"user_id": "ann", "instance_id": "salt", "label_annotations": given, "span_annotations": []}
    (tmp_path / "lines.jsonl").write_text(json.dumps(line) + "\n")
    assert import_labels("potato", batch, tmp_path / "lines.jsonl") == (1, 0)
    [label] = read_labels(batch)
    assert [label.ranks[which] for which in order] == [2, 2, 1]
    assert [label.quality[which] for which in order] == [5, None, None]
    assert [sorted(label.flags[which]) for which in order] == [[], ["hallucination", "opinion"], []]
    assert (label.labeler, label.seconds, label.skipped) == ("ann", None, None)


def test_the_settings_of_potato_are_yaml_and_its_texts_are_escaped(tmp_path: Path) -> None:
    export_labels("potato", batch_of_all_sizes(tmp_path), tmp_path / "out")
    settings = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    ranking = next(scheme for scheme in settings["annotation_schemes"] if scheme["name"] == "ranking")
    assert ranking["allow_ties"] and ranking["labels"] == list("ABCDEFGHI")
    first = json.loads((tmp_path / "out" / "items.jsonl").read_text().splitlines()[0])
    assert "größe &lt;b&gt;" in first["text"] and "größe <b>" not in first["text"]


def test_rankings_are_comparisons_of_data_preparation(tmp_path: Path) -> None:
    batch = filled(tmp_path, 1)
    [path] = export_labels("rankings", batch, tmp_path / "out")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = [comparison for row in rows for comparison in comparisons_of(Row(row, "x"))]
    ranked = [label for label in read_labels(batch) if label.skipped is None]
    kept = [(it.labeler_id, it.ranks, it.quality, it.flags, it.seconds) for it in found]
    assert kept == [(it.labeler, it.ranks, it.quality, it.flags, it.seconds) for it in ranked]
    assert found[0].completions == batch.items[ranked[0].item_id].responses


def test_a_ranking_of_somebody_else_finds_its_item(tmp_path: Path) -> None:
    batch = written(tmp_path)
    asked = batch.items["iron"]
    row = {"prompt": asked.text, "completions": asked.responses, "ranks": [1, 2, 2, 1], "labeler": "zoe"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n")
    assert import_labels("rankings", batch, tmp_path / "mine.jsonl") == (1, 0)
    [label] = read_labels(batch)
    assert (label.item_id, label.ranks, label.seconds) == ("iron", [1, 2, 2, 1], None)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("label_studio", "{}", "found dict, expected the list of tasks"),
        ("label_studio", "[", "broken JSON"),
        ("label_studio", '[{"data": {"item_id": "coal"}}]', "task 1: found a label of 'coal', which is no item"),
        ("label_studio", '[{"data": {}}]', "task 1: found nothing as 'item_id'"),
        (
            "label_studio",
            '[{"data": {"item_id": "salt"}, "annotations": [{"completed_by": 1, "result": []}]}]',
            "no result of 'rank' by 1",
        ),
        (
            "label_studio",
            '[{"data": {"item_id": "salt"}, "annotations": [{"completed_by": 1, "result": [{"from_name": "rank", "value": '
            '{"ranker": {"rank-1": ["A"], "_": ["B", "C", "D"]}}}]}]}]',
            "found A in the buckets",
        ),
        (
            "potato",
            '{"user_id": "ann", "instance_id": "salt", "label_annotations": {}}',
            "found nothing as 'rank_order'",
        ),
        ("potato", '{"instance_id": "salt", "label_annotations": {}}', "found no labeler"),
        ("potato", '{"user_id": "ann", "instance_id": 3}', "found int as 'instance_id'"),
        ("rankings", '{"completions": ["a"], "ranks": [1], "prompt": "x"}', "found no item of batch first"),
        (
            "rankings",
            '{"item_id": "salt", "completions": ["a"], "ranks": [1]}',
            "found other completions than those of salt",
        ),
    ],
)
def test_what_cannot_be_read_is_told_and_nothing_is_added(
    tmp_path: Path, name: str, content: str, problem: str
) -> None:
    batch = written(tmp_path)
    (tmp_path / "file").write_text(content + "\n")
    with pytest.raises(DataError, match=problem):
        import_labels(name, batch, tmp_path / "file")
    assert read_labels(batch) == []


def test_one_wrong_label_keeps_all_others_out(tmp_path: Path) -> None:
    batch = written(tmp_path)
    export_labels("rankings", batch, tmp_path)
    rows = [
        {"item_id": name, "completions": batch.items[name].responses, "ranks": ranks, "labeler": "zoe"}
        for name, ranks in (("salt", [1, 2, 3, 4]), ("iron", [1, 2, 3, 9]))
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="label of zoe for iron: found rank 9"):
        import_labels("rankings", batch, tmp_path / "mine.jsonl")
    assert read_labels(batch) == []
    with pytest.raises(DataError, match="found no such file"):
        import_labels("rankings", batch, tmp_path / "absent.jsonl")


@pytest.mark.parametrize(
    "other", [{"quality": 0.9}, {"quality": ["high", "low"]}, {"flags": "none"}, {"seconds": "12"}]
)
def test_a_field_of_another_meaning_is_no_mark(other: dict[str, object]) -> None:
    row = {"prompt": "a", "completions": ["x", "y"], "ranks": [1, 2]} | other
    [found] = comparisons_of(Row(row, "x"))
    assert (found.quality, found.flags, found.seconds) == ([], [], None)
