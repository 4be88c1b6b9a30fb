"""What goes wrong around the page: work that was handed on, damaged files, folders that vanish, thousands of labels."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from flows.label import __main__ as command
from flows.label import desk as desks
from flows.label.app import create_app
from flows.label.desk import Desk
from flows.label.tokens import Labelers
from tasks.records import labels as records
from tasks.records.labels import Label, LabelBatch, append_label, read_labels
from tests.unit.label.batches import item, written
from tests.unit.label.test_page import Person, answers

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def label(item_id: str, labeler: str, ranks: list[int]) -> Label:
    nothing: list[list[str]] = [[] for _ in ranks]
    return Label(
        item_id=item_id,
        labeler=labeler,
        ranks=ranks,
        quality=[None] * len(ranks),
        flags=nothing,
        skipped=None,
        seconds=None,
        time=NOON,
    )


def test_work_that_was_begun_is_taken_after_the_item_went_to_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desks, "LENT_SECONDS", -1.0)  # handed on at once
    batch = written(tmp_path, item("salt"))
    app = create_app(tmp_path)
    ann, bob = Person(tmp_path, "ann", app), Person(tmp_path, "bob", app)
    address = ann.next()
    form = ann.form(address)
    assert bob.http.post(bob.next(), data=bob.form(address) | answers([1, 2, 3, 4])).status_code == 303
    assert ann.http.get(address).status_code == 409
    assert ann.http.post(address, data=form | answers([4, 3, 2, 1])).status_code == 303
    assert [one.labeler for one in read_labels(batch)] == ["ann", "bob"]


def test_a_reason_that_is_too_long_is_refused_and_not_cut(tmp_path: Path) -> None:
    batch = written(tmp_path)
    ann = Person(tmp_path, "ann", create_app(tmp_path))
    address = ann.next()
    form = ann.form(address)
    reply = ann.http.post(address, data=form | {"skipped": "", "other_reason": "ä" * 501})
    assert reply.status_code == 422 and "the reason has 501 characters, expected at most 500" in reply.text
    assert "ä" * 501 in reply.text
    assert ann.http.post(address, data=form | {"skipped": "", "other_reason": "ä" * 500}).status_code == 303
    assert read_labels(batch)[0].skipped == "ä" * 500


def test_a_damaged_batch_does_not_close_the_others(tmp_path: Path) -> None:
    written(tmp_path)
    damaged = written(tmp_path, id="second")
    (damaged.folder / "items.jsonl").write_text('{"item_id": 3}\n')
    ann = Person(tmp_path, "ann", create_app(tmp_path))
    page = ann.http.get("/")
    assert page.status_code == 200 and "3 left for you" in page.text
    assert "cannot be read" in page.text and "items.jsonl:1" in page.text
    reply = ann.http.get("/batch/second")
    assert reply.status_code == 500 and "items.jsonl:1" in reply.text


def test_damaged_tokens_are_one_sentence(tmp_path: Path) -> None:
    written(tmp_path)
    ann = Person(tmp_path, "ann", create_app(tmp_path))
    for damage in ("{", '["ann"]', '{"ann": 3}'):
        Labelers(tmp_path).path.write_text(damage)
        reply = ann.http.get("/batch/first")
        assert reply.status_code == 500 and "labelers.json: found a file that cannot be read" in reply.text, damage


def test_a_batch_that_is_taken_away_is_gone_and_one_in_its_place_is_read(tmp_path: Path) -> None:
    batch = written(tmp_path)
    ann = Person(tmp_path, "ann", create_app(tmp_path))
    address = ann.next()
    form = ann.form(address)
    shutil.rmtree(batch.folder)
    assert ann.http.post(address, data=form | answers([1, 2, 3, 4])).status_code == 404
    assert ann.http.get("/batch/first").status_code == 404
    written(tmp_path, item("moss", policies=2))
    assert ann.next() == "/batch/first/1" and len(ann.shown("/batch/first/1")) == 2


def test_pages_of_two_folders_do_not_end_each_others_visit(tmp_path: Path) -> None:
    """A browser has one set of cookies for all ports of a host."""
    jar: dict[str, str] = {}
    for port in (4300, 4301):
        written(tmp_path / str(port))
        app = create_app(tmp_path / str(port))
        http = TestClient(app, base_url=f"http://127.0.0.1:{port}", follow_redirects=False)
        http.get("/enter", params={"token": Labelers(tmp_path / str(port)).add("ann")})
        jar |= dict(http.cookies)
    for port in (4300, 4301):
        app = create_app(tmp_path / str(port))
        http = TestClient(app, base_url=f"http://127.0.0.1:{port}", cookies=jar, follow_redirects=False)
        assert http.get("/batch/first").status_code == 303, port


@pytest.mark.parametrize("name", ["http://labels.example", "labels.example:4300", "*", "a b", ""])
def test_a_name_under_which_nobody_could_open_the_page_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.uvicorn, "run", lambda *_, **__: pytest.fail("it was served"))
    with pytest.raises(SystemExit, match="expected a host name or address alone"):
        command.main(["--host", "0.0.0.0", "--name", name])


def test_labels_are_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [item(f"i{number}") for number in range(60)]
    batch = written(tmp_path, *items)
    for number in range(50):
        append_label(batch, label(f"i{number}", ("ann", "bob")[number % 2], [1, 2, 3, 4]))
    read: list[str] = []

    def counted(batch: LabelBatch, path: Path) -> list[Label]:
        read.append(path.stem)
        return records.labels_in(batch, path)

    monkeypatch.setattr(desks, "labels_in", counted)
    desk = Desk(tmp_path)
    for _ in range(3):
        assert desk.labels(batch) == read_labels(batch)
        assert desk.next_item(batch, "ann") is not None
    assert read == ["ann", "bob"]
    desk.put(batch, label("i50", "ann", [2, 1, 1, 1]))  # of this page
    append_label(batch, label("i51", "cid", [1, 1, 1, 1]))  # of another process
    assert desk.labels(batch) == read_labels(batch)
    assert read == ["ann", "bob", "ann", "cid"]
    desk.put(batch, label("i50", "ann", [2, 1, 1, 1]))
    assert len((batch.folder / "labels" / "ann.jsonl").read_text().splitlines()) == 26
    assert [json.loads(line)["item_id"] for line in (batch.folder / "labels" / "cid.jsonl").open()] == ["i51"]
