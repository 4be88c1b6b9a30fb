"""People as labelers: what they are asked, when they have answered enough, and what comes of it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.comparisons.job import ComparisonsJob
from tasks.comparisons.labelers.people import People
from tasks.engine.errors import AwaitingLabels, DataError
from tasks.records.labels import Label, append_label, batch_folder, read_batch
from tests.unit.comparisons.labelers.asked import config, item

ITEMS = [item("p", "a", "b", "c", shared=True), item("q", "d", "e")]
CANDIDATES = "0" * 64


def people(home: Path, enough: float = 1.0) -> People:
    return People(config(labelers=["people"], people={"enough": enough}).people, home, "batch-1", 0.5)


def answer(home: Path, who: str, item_id: str, *ranks: int) -> None:
    label = Label(
        item_id=item_id,
        labeler=who,
        ranks=[*ranks],
        quality=[7] * len(ranks),
        flags=[["opinion"]] * len(ranks),
        skipped=None if ranks else "cannot read it",
        seconds=3.0,
        time=datetime(2026, 1, 1, tzinfo=UTC),
    )
    append_label(read_batch(batch_folder(home, "batch-1")), label)


def test_a_run_waits_for_labels_and_goes_on_with_them(tmp_path: Path) -> None:
    with pytest.raises(
        AwaitingLabels,
        match=rf"2 of 2 labels .* batch-1; .*PLUMBLINE_HOME={tmp_path} python -m flows.label",
    ):
        people(tmp_path).label(ITEMS)
    batch = read_batch(batch_folder(tmp_path, "batch-1"))
    assert [(one.item_id, one.text, one.shared) for one in batch.items.values()] == [
        ("train/p", "what is p ?", True),
        ("train/q", "what is q ?", False),
    ]
    answer(tmp_path, "ann", "train/p", 2, 1, 2)
    with pytest.raises(AwaitingLabels, match="1 of 2 labels"):
        people(tmp_path).label(ITEMS)
    assert people(tmp_path, enough=0.5).label(ITEMS)["train/p"][0].ranks == [2, 1, 2]
    answer(tmp_path, "bob", "train/p", 1, 2, 3)
    answer(tmp_path, "bob", "train/q")
    found = people(tmp_path, enough=0.5).label(ITEMS)
    assert people(tmp_path).label(ITEMS) == found
    answer(tmp_path, "eve", "train/q", 1, 2)
    with pytest.raises(AwaitingLabels, match="1 of 4 labels"):  # whoever labels at all ranks the shared part
        people(tmp_path).label(ITEMS)
    assert [(one.labeler_id, one.ranks) for one in found["train/p"]] == [("ann", [2, 1, 2]), ("bob", [1, 2, 3])]
    assert found["train/q"] == []
    assert (found["train/p"][0].quality, found["train/p"][0].flags, found["train/p"][0].seconds) == (
        [7, 7, 7],
        [["opinion"]] * 3,
        3.0,
    )


def test_labels_are_part_of_the_key_and_enough_is_not_part_of_the_batch(tmp_path: Path) -> None:
    def job(**changes: object) -> ComparisonsJob:
        return ComparisonsJob(comparisons=config(labelers=["people"], **changes), round=1, policy="sft")

    one, batch_id = job(), job().batch_id(CANDIDATES)
    assert one.fields_that_grow(tmp_path, {}) == {}
    folder = batch_folder(tmp_path, batch_id) / "labels"
    folder.mkdir(parents=True)
    before = one.fields_that_grow(tmp_path, {"candidates": CANDIDATES})
    (folder / "ann.jsonl").write_text("{}\n")
    after = one.fields_that_grow(tmp_path, {"candidates": CANDIDATES})
    (folder / "ann.jsonl").write_text("{}\n{}\n")
    assert before["labels"] == {} and list(after["labels"]) == ["ann.jsonl"]
    assert one.fields_that_grow(tmp_path, {"candidates": CANDIDATES}) != after
    assert job(people={"enough": 0.5}).batch_id(CANDIDATES) == batch_id
    assert job(people={"quality_levels": 5}).batch_id(CANDIDATES) != batch_id
    assert job(seed=8).batch_id(CANDIDATES) != batch_id != one.batch_id("1" * 64)


def test_another_batch_of_the_same_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AwaitingLabels):
        people(tmp_path).label(ITEMS)
    with pytest.raises(DataError, match="found another batch of the id 'batch-1'"):
        people(tmp_path).label(ITEMS[:1])
