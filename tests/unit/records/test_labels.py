"""Labelling batches and labels on disk."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.engine.errors import ArtifactError, DataError
from tasks.records import appended
from tasks.records.labels import (
    PAPER_FORM,
    Batch,
    Item,
    Label,
    LabelBatch,
    Origin,
    append_label,
    batches,
    choose_shared,
    comparisons_of,
    labels_file,
    progress,
    read_batch,
    read_labels,
    write_batch,
)
from tasks.records.records import Comparison, Prompt

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def item(name: str, shared: bool = False) -> Item:
    prompt = Prompt(prompt_id=name, owner_id="o", text=f"<user>{name}?", metadata={"gold": [1]})
    return Item(
        item_id=name,
        text=f"{name} ? größe\nnext",
        responses=["x", "", "<b>z</b>"],
        shared=shared,
        origin=Origin(prompt=prompt, source_policy=["sft", "ppo", "sft"], finished=[True, False, True]),
    )


def batch(**changes: object) -> Batch:
    given = {"id": "first", "form": PAPER_FORM, "instructions": "rank", "labels_per_item": 1, "shared_share": 0.5}
    return Batch(**given | changes)  # type: ignore[arg-type]


@pytest.fixture
def written(tmp_path: Path) -> LabelBatch:
    return write_batch(tmp_path, batch(), [item("a", shared=True), item("b")])


def label(item_id: str = "a", labeler: str = "ann", **changes: object) -> Label:
    given = {
        "item_id": item_id,
        "labeler": labeler,
        "ranks": [1, 2, 1],
        "quality": [7, 1, None],
        "flags": [[], ["hallucination", "opinion"], []],
        "skipped": None,
        "seconds": 12.5,
        "time": NOON,
    }
    return Label(**given | changes)  # type: ignore[arg-type]


def skip(item_id: str, labeler: str) -> Label:
    return label(item_id, labeler, ranks=[], quality=[], flags=[], skipped="not clear")


def test_a_batch_comes_back_as_it_was_written(tmp_path: Path, written: LabelBatch) -> None:
    read = read_batch(tmp_path / "labels" / "first")
    assert read.batch == batch()
    assert list(read.items.values()) == [item("a", shared=True), item("b")]
    assert batches(tmp_path) == ["first"]
    assert sorted(path.name for path in read.folder.parent.iterdir()) == ["first"]


def test_the_same_batch_again_changes_nothing_and_another_is_refused(tmp_path: Path, written: LabelBatch) -> None:
    append_label(written, label())
    write_batch(tmp_path, batch(), [item("a", shared=True), item("b")])
    assert read_labels(written) == [label()]
    with pytest.raises(DataError, match="found another batch of the id 'first'"):
        write_batch(tmp_path, batch(), [item("a"), item("b")])
    with pytest.raises(DataError, match="found another batch of the id 'first'"):
        write_batch(tmp_path, batch(instructions="other"), [item("a", shared=True), item("b")])


@pytest.mark.parametrize(("items", "found"), [([], "no items"), ([item("a"), item("a")], "item 'a' twice")])
def test_a_batch_has_items_with_an_id_each(tmp_path: Path, items: list[Item], found: str) -> None:
    with pytest.raises(DataError, match=f"found {found}"):
        write_batch(tmp_path, batch(), items)
    assert batches(tmp_path) == []


def test_a_batch_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(ArtifactError, match="the disk is full"):
        write_batch(tmp_path, batch(), [item("a")])
    assert list((tmp_path / "labels").iterdir()) == []


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a" * 65, "a\n"])
def test_names_are_fit_for_files(name: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        batch(id=name)
    with pytest.raises(ValueError, match="pattern"):
        label(labeler=name)


def test_the_newest_label_counts(written: LabelBatch) -> None:
    for given in (label(), label("b"), label(labeler="bob"), label(seconds=3.0)):
        append_label(written, given)
    assert read_labels(written) == [label(seconds=3.0), label("b"), label(labeler="bob")]
    assert len(labels_file(written, "ann").read_text().splitlines()) == 3
    assert labels_file(written, "ann").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"item_id": "c"}, "'c', which is no item of batch first"),
        ({"ranks": [1, 2]}, "'ranks' has 2 entries, expected 3"),
        ({"ranks": [1, 2, 4]}, r"found rank 4, expected 1 \(best\) to 3"),
        ({"ranks": [0, 1, 2]}, "found rank 0"),
        ({"quality": [1]}, "'quality' has 1 entries"),
        ({"quality": [8, 1, 1]}, r"found quality 8, expected 1 \(worst\) to 7"),
        ({"flags": [["rude"], [], []]}, "found flag 'rude', expected one of constraint_kept, denigrates"),
        ({"skipped": "odd"}, "a skipped item with an answer"),
        ({"skipped": " ", "ranks": [], "quality": [], "flags": []}, "or no reason"),
    ],
)
def test_a_label_that_does_not_fit_is_refused(written: LabelBatch, changes: dict[str, object], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        append_label(written, label(**changes))
    assert not labels_file(written, "ann").exists()
    labels_file(written, "ann").write_text(label(**changes).model_dump_json() + "\n")
    with pytest.raises(DataError, match=rf"ann\.jsonl:1: .*{problem}"):
        read_labels(written)


def test_labels_are_read_strictly(written: LabelBatch) -> None:
    path = labels_file(written, "ann")
    line = json.loads(label().model_dump_json())
    path.write_text(json.dumps(line | {"ranks": ["1", 2, 1]}) + "\n")
    with pytest.raises(DataError, match=r"ann\.jsonl:1: .*ranks"):
        read_labels(written)
    path.write_text("broken\n" + json.dumps(line) + "\n")
    with pytest.raises(DataError, match=r"ann\.jsonl:1"):
        read_labels(written)
    path.write_text(json.dumps(line | {"labeler": "bob"}) + "\n")
    with pytest.raises(DataError, match="found a label of 'bob', expected one of 'ann'"):
        read_labels(written)


def test_every_cut_of_the_last_line_loses_no_whole_one_and_doubles_none(
    written: LabelBatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = labels_file(written, "ann")
    append_label(written, label())
    first = path.read_bytes()
    append_label(written, label("b"))
    whole = path.read_bytes()
    for end in range(len(first), len(whole) + 1):
        path.write_bytes(whole[:end])
        path.with_suffix(".cut").unlink(missing_ok=True)
        caplog.clear()
        cut_off = len(first) < end < len(whole) - 1
        kept = [label()] if end < len(whole) - 1 else [label(), label("b")]
        assert read_labels(written) == kept
        assert ("is cut off" in caplog.text) == cut_off
        append_label(written, label(seconds=1.0))
        assert read_labels(written) == [label(seconds=1.0), *kept[1:]]
        assert path.with_suffix(".cut").exists() == cut_off
        if cut_off:
            assert path.with_suffix(".cut").read_bytes() == whole[len(first) : end] + b"\n"


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_what_was_there(written: LabelBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    append_label(written, label())
    before = labels_file(written, "ann").read_bytes()
    real = os.write
    with monkeypatch.context() as patched, pytest.raises(ArtifactError, match="the disk is full"):
        patched.setattr(appended.os, "write", lambda descriptor, content: real(descriptor, content[:10]))
        append_label(written, label("b"))
    assert labels_file(written, "ann").read_bytes() == before
    with monkeypatch.context() as patched, pytest.raises(ArtifactError, match="the disk is full"):
        patched.setattr(appended.os, "fsync", full_disk)
        append_label(written, label("b"))
    assert labels_file(written, "ann").read_bytes() == before


def test_many_writers_at_once(written: LabelBatch) -> None:
    program = (
        "import sys; from pathlib import Path; from tasks.records.appended import append_line\n"
        "for n in range(50): append_line(Path(sys.argv[1]), '{\"by\": \"' + sys.argv[2] + '\", \"n\": ' + str(n) + '}')"
    )
    path = written.folder / "many.jsonl"
    processes = [subprocess.Popen([sys.executable, "-c", program, str(path), name]) for name in ("x", "y")]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: appended.append_line(path, f'{{"by": "z", "n": {n}}}'), range(50)))
    assert [process.wait() for process in processes] == [0, 0]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted((line["by"], line["n"]) for line in lines) == sorted((by, n) for by in "xyz" for n in range(50))


def test_one_writer_waits_for_another(written: LabelBatch) -> None:
    path = labels_file(written, "ann")
    path.write_bytes(b"cut off")
    with ThreadPoolExecutor(1) as threads, path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threads.submit(append_label, written, label())
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        assert path.read_bytes() == b"cut off"
        fcntl.flock(other, fcntl.LOCK_UN)
        waiting.result(timeout=30)
    assert read_labels(written) == [label()]


def test_progress_counts_shared_items_once_for_everybody(written: LabelBatch) -> None:
    assert progress(written, []) == (0, 2)
    assert progress(written, [], ["ann", "bob"]) == (0, 3)
    assert progress(written, [], ["ann", "bob"]).missing == 3
    labels = [label("a"), label("b"), label("b", "bob")]
    assert progress(written, labels, ["ann", "bob"]) == (2, 3)
    assert progress(written, [*labels, skip("a", "bob")], ["ann", "bob"]) == (3, 3)


def test_comparisons_carry_what_the_labeler_marked(written: LabelBatch) -> None:
    for given in (label("b"), label("a", "bob"), skip("a", "ann")):
        append_label(written, given)
    prompt = item("a").origin.prompt
    expected = Comparison(
        prompt=prompt,
        completions=["x", "", "<b>z</b>"],
        ranks=[1, 2, 1],
        labeler_id="bob",
        source_policy=["sft", "ppo", "sft"],
        finished=[True, False, True],
        quality=[7, 1, None],
        flags=[[], ["hallucination", "opinion"], []],
        seconds=12.5,
    )
    found = comparisons_of(written)
    assert found[0] == expected
    assert [(it.prompt.prompt_id, it.labeler_id) for it in found] == [("a", "bob"), ("b", "ann")]


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.05, 1), (0.2, 2), (1.0, 10)])
def test_shared_items_are_a_share_that_order_does_not_change(share: float, count: int) -> None:
    ids = [f"i{n}" for n in range(10)]
    chosen = choose_shared(ids, share)
    assert len(chosen) == count
    assert chosen == choose_shared(ids[::-1], share)
    assert choose_shared(ids, 0.1) <= choose_shared(ids, 0.5)
