"""The labelling page over HTTP."""

import errno
import html
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from flows.label.app import create_app
from flows.label.desk import Desk
from flows.label.tokens import Labelers
from tasks.records import appended
from tasks.records.labels import LabelBatch, read_batch, read_labels
from tests.unit.label.batches import item, written

ATTACK = "<script>alert('x')</script>"
ESCAPED = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1_767_355_200.0  # 2026-01-02 12:00 UTC

    def __call__(self) -> float:
        return self.now


class Person:
    """A labeler at a browser without scripts."""

    def __init__(self, home: Path, name: str, app: object) -> None:
        self.http = TestClient(app, base_url="http://127.0.0.1:4300", follow_redirects=False)  # type: ignore[arg-type]
        self.entered = self.http.get("/enter", params={"token": Labelers(home).add(name)})

    def next(self) -> str:
        """Address of the next item."""
        reply = self.http.get("/batch/first")
        assert reply.status_code == 303, reply.text
        return reply.headers["location"].partition("?")[0]

    def form(self, address: str) -> dict[str, str]:
        reply = self.http.get(address)
        assert reply.status_code == 200, reply.text
        found = re.search(r'name="form" value="([^"]+)"', reply.text)
        assert found
        return {"form": found[1]}

    def shown(self, address: str) -> list[str]:
        """The responses in the order of the page."""
        found = re.findall(
            r'<h2 id="output-\d">.*?<div class="text[^"]*"[^>]*>(.*?)</div>', self.http.get(address).text, re.S
        )
        return [html.unescape(text) for text in found]


def answers(ranks: list[int], quality: list[int] | None = None, **flags: list[str]) -> dict[str, object]:
    fields: dict[str, object] = {f"rank-{at}": str(rank) for at, rank in enumerate(ranks)}
    fields |= {f"quality-{at}": str(level) for at, level in enumerate(quality or [4] * len(ranks))}
    return fields | {name.replace("_", "-"): values for name, values in flags.items()}


@pytest.fixture
def batch(tmp_path: Path) -> LabelBatch:
    return written(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(tmp_path: Path, batch: LabelBatch, clock: Clock) -> object:
    return create_app(tmp_path, ["labels.example"], clock)


@pytest.fixture
def ann(tmp_path: Path, app: object) -> Person:
    return Person(tmp_path, "ann", app)


def test_a_label_is_stored_in_the_order_of_the_item(ann: Person, batch: LabelBatch, clock: Clock) -> None:
    address = ann.next()
    shown, form = ann.shown(address), ann.form(address)
    clock.now += 42
    fields = form | answers([1, 2, 2, 4], [7, 5, 4, 1], flag_1=["opinion", "hallucination"])
    reply = ann.http.post(address, data=fields)
    assert (reply.status_code, reply.headers["location"]) == (303, f"/batch/first?after={address.rpartition('/')[2]}")
    [label] = read_labels(batch)
    asked = batch.items[label.item_id]
    assert sorted(shown) == sorted(asked.responses)
    place = [shown.index(response) for response in asked.responses]
    assert label.ranks == [[1, 2, 2, 3][at] for at in place]  # without gaps
    assert label.quality == [[7, 5, 4, 1][at] for at in place]
    assert label.flags == [[[], ["hallucination", "opinion"], [], []][at] for at in place]
    assert (label.labeler, label.skipped, label.seconds) == ("ann", None, 42.0)
    assert label.time.isoformat() == "2026-01-02T12:00:42+00:00"


def test_labelers_are_blind_and_see_each_their_own_order(tmp_path: Path, app: object, ann: Person) -> None:
    address = "/batch/first/3"
    first = ann.http.get(address).text
    assert "policy-" not in first and "secret" not in first and "gold" not in first and "&lt;user&gt;" not in first
    assert ann.shown(address) == ann.shown(address)
    orders = {tuple(Person(tmp_path, f"p{n}", app).shown(address)) for n in range(6)}
    assert len(orders) > 1


def test_two_labelers_get_different_items_and_both_get_the_shared_one(tmp_path: Path, app: object, ann: Person) -> None:
    bob = Person(tmp_path, "bob", app)
    seen: dict[str, list[str]] = {"ann": [], "bob": []}
    for _ in range(3):
        addresses = {name: one.http.get("/batch/first") for name, one in (("ann", ann), ("bob", bob))}
        for name, one in (("ann", ann), ("bob", bob)):
            if addresses[name].status_code == 303:
                address = addresses[name].headers["location"].partition("?")[0]
                seen[name].append(address)
                one.http.post(address, data=one.form(address) | answers([1, 2, 3, 4]))
    assert "/batch/first/3" in seen["ann"] and "/batch/first/3" in seen["bob"]
    assert sorted(seen["ann"] + seen["bob"]) == [f"/batch/first/{n}" for n in (1, 2, 3, 3)]
    done = ann.http.get("/batch/first")
    assert done.status_code == 200 and "4 of 4 answers" in done.text


def test_an_item_that_is_with_another_labeler_is_refused(tmp_path: Path, app: object, ann: Person) -> None:
    bob = Person(tmp_path, "bob", app)
    address = ann.next()
    while address.endswith("/3"):
        ann.http.post(address, data=ann.form(address) | answers([1, 1, 1, 1]))
        address = ann.next()
    assert ann.next() == address
    reply = bob.http.get(address)
    assert reply.status_code == 409 and "is with another labeler" in reply.text
    assert bob.http.post(address, data=answers([1, 2, 3, 4])).status_code == 403


def test_an_item_that_was_left_lying_is_handed_on(batch: LabelBatch, tmp_path: Path) -> None:
    clock = Clock()
    desk = Desk(tmp_path, clock)
    first = {name: desk.next_item(batch, name) for name in ("ann", "bob")}
    lent = next(it for it in first.values() if it is not None and not it.shared)
    holder, other = ("ann", "bob") if first["ann"] == lent else ("bob", "ann")
    assert not desk.may_answer(batch, other, lent)
    clock.now += 1799
    assert not desk.may_answer(batch, other, lent)
    clock.now += 2
    assert desk.may_answer(batch, other, lent) and desk.may_answer(batch, holder, lent)


def test_an_item_that_needs_two_labels_is_lent_to_two(tmp_path: Path) -> None:
    batch = written(tmp_path, item("salt"), id="two", labels_per_item=2)
    desk = Desk(tmp_path)
    found = [desk.next_item(batch, name) for name in ("ann", "bob", "cid", "ann")]
    assert found == [item("salt"), item("salt"), None, item("salt")]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rank-3": None}, "the rank of D is missing"),
        ({"quality-0": None}, "the quality of A is missing"),
        ({"rank-4": "1"}, "an answer about response 5 of 4"),
        ({"rank-0": "5"}, "the rank of A is &#39;5&#39;, expected 1 to 4"),
        ({"rank-0": "0"}, "the rank of A is &#39;0&#39;"),
        ({"rank-0": "-1"}, "the rank of A is &#39;-1&#39;"),
        ({"rank-0": "²"}, "the rank of A is"),
        ({"quality-1": "8"}, "the quality of B is &#39;8&#39;, expected 1 to 7"),
        ({"rank-0": ["1", "2"]}, "found 2 values of rank-0"),
        ({"flag-0": ["rude"]}, "found flag &#39;rude&#39;"),
        ({"skipped": "", "other_reason": "  "}, "an item is skipped for a reason"),
    ],
)
def test_what_is_wrong_is_told_and_the_rest_of_the_form_is_kept(
    ann: Person, batch: LabelBatch, changes: dict[str, object], sentence: str
) -> None:
    address = ann.next()
    fields = ann.form(address) | answers([4, 3, 2, 1], [1, 2, 3, 4], flag_2=["violent"]) | changes
    reply = ann.http.post(address, data={name: value for name, value in fields.items() if value is not None})
    assert reply.status_code == 422
    assert sentence in reply.text and "Not stored" in reply.text
    assert read_labels(batch) == []
    assert 'name="rank-2" value="2" required checked' in reply.text
    assert re.search(r'name="flag-2" value="violent"[^>]* checked', reply.text)


def test_skipping_needs_no_ranks(ann: Person, batch: LabelBatch) -> None:
    address = ann.next()
    reply = ann.http.post(address, data=ann.form(address) | {"skipped": "", "other_reason": f" too \n long {ATTACK}"})
    assert reply.status_code == 303
    [label] = read_labels(batch)
    assert (label.skipped, label.ranks) == (f"too long {ATTACK}", [])
    assert ann.next() != address


def test_the_same_form_twice_is_one_label_and_another_answer_replaces_it(ann: Person, batch: LabelBatch) -> None:
    address = ann.next()
    fields = ann.form(address) | answers([1, 2, 3, 4])
    with ThreadPoolExecutor(4) as threads:
        codes = list(threads.map(lambda _: ann.http.post(address, data=fields).status_code, range(8)))
    assert codes == [303] * 8
    [path] = (batch.folder / "labels").glob("*.jsonl")
    assert len(path.read_text().splitlines()) == 1
    again = ann.http.get(address).text
    assert 'name="rank-3" value="4" required checked' in again
    ann.http.post(address, data=fields | {"rank-3": "1"})
    assert len(path.read_text().splitlines()) == 2
    assert sorted(read_labels(batch)[0].ranks) == [1, 1, 2, 3]


def test_texts_are_never_markup(tmp_path: Path, ann: Person) -> None:
    written(tmp_path, item("x", text=ATTACK, responses=[f"{ATTACK}1", " "], policies=2), id="attack")
    reply = ann.http.get("/batch/attack/1")
    assert "<script>alert" not in reply.text
    assert reply.text.count(ESCAPED) == 3  # the request, and an output where it is judged and ranked
    assert "Be &lt;b&gt;honest&lt;/b&gt;." in reply.text and "(empty)" in reply.text
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert "style=" not in reply.text and "onclick" not in reply.text


def test_only_links_that_were_handed_out_open_anything(tmp_path: Path, app: object, ann: Person) -> None:
    cookie = ann.entered.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie
    stranger = TestClient(app, base_url="http://127.0.0.1:4300", follow_redirects=False)  # type: ignore[arg-type]
    assert stranger.get("/enter", params={"token": "wrong"}).status_code == 401
    for address in ("/", "/batch/first", "/batch/first/1"):
        reply = stranger.get(address, cookies={"plumbline_labeler_4300": "wrong"})
        assert reply.status_code == 401 and "flows.label add NAME" in reply.text
    assert stranger.post("/batch/first/1", data=answers([1, 2, 3, 4])).status_code == 401
    Labelers(tmp_path).remove("ann")
    assert ann.http.get("/batch/first").status_code == 401


def test_a_form_of_another_page_is_refused(tmp_path: Path, app: object, ann: Person, batch: LabelBatch) -> None:
    bob = Person(tmp_path, "bob", app)
    own, shared = answers([1, 2, 3, 4]), "/batch/first/3"
    signed = ann.form(shared)["form"]
    for form in ("", "1.2", f"0{signed}", signed[:-1] + "é", bob.form(shared)["form"]):
        reply = ann.http.post(shared, data=own | {"form": form})
        assert reply.status_code == 403, form
    assert ann.http.post(shared, data=own).status_code == 403
    assert ann.http.post(shared, json=own | {"form": signed}).status_code == 415
    assert read_labels(batch) == []


def test_only_known_names_of_the_page_are_answered(ann: Person) -> None:
    assert ann.http.get("/", headers={"host": "evil.example"}).status_code == 400
    assert ann.http.get("/", headers={"host": "labels.example:4300"}).status_code == 303
    assert ann.http.get("/", headers={"host": "localhost:4300"}).status_code == 303


@pytest.mark.parametrize(
    "address",
    [
        "/batch/second",
        "/batch/..%2f..",
        "/batch/first/0",
        "/batch/first/4",
        "/batch/first/x",
        "/static/app.py",
        "/docs",
    ],
)
def test_what_is_not_there(ann: Person, address: str) -> None:
    reply = ann.http.get(address)
    assert reply.status_code == 404 and "<h1>This did not work</h1>" in reply.text


def test_a_label_of_an_item_that_does_not_exist_is_refused(ann: Person, batch: LabelBatch) -> None:
    form = ann.form(ann.next())
    assert ann.http.post("/batch/first/9", data=form | answers([1, 2, 3, 4])).status_code == 404
    assert read_labels(batch) == []


def test_a_form_that_is_too_large(ann: Person) -> None:
    address = ann.next()
    assert ann.http.post(address, data=ann.form(address) | {"other_reason": "x" * 200_000}).status_code == 413


def test_a_full_disk_keeps_what_was_typed(ann: Person, batch: LabelBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    address = ann.next()
    fields = ann.form(address) | answers([1, 2, 3, 4])
    with monkeypatch.context() as patched:
        patched.setattr(appended.os, "fsync", full)
        reply = ann.http.post(address, data=fields)
    assert reply.status_code == 507
    assert "Not stored" in reply.text and "disk is full" in reply.text
    assert 'name="rank-3" value="4" required checked' in reply.text
    assert read_labels(batch) == []
    assert ann.http.post(address, data=fields).status_code == 303
    assert len(read_labels(batch)) == 1


@pytest.mark.parametrize(
    ("counted", "stored"), [("12.5", 12.5), ("", 60.0), ("nan", 60.0), ("-1", 60.0), ("1e9", 60.0)]
)
def test_seconds_are_those_of_the_browser_if_they_can_be(
    ann: Person, batch: LabelBatch, clock: Clock, counted: str, stored: float
) -> None:
    address = ann.next()
    form = ann.form(address)
    clock.now += 60
    ann.http.post(address, data=form | answers([1, 2, 3, 4]) | {"seconds": counted})
    assert read_labels(batch)[0].seconds == stored


def test_whoever_waits_is_told_of_every_label_that_was_stored(tmp_path: Path, batch: LabelBatch) -> None:
    told: list[int] = []
    app = create_app(tmp_path, stored=lambda folder: told.append(len(read_labels(read_batch(folder)))))
    ann = Person(tmp_path, "ann", app)
    address = ann.next()
    ann.http.post(address, data=ann.form(address) | answers([1, 2, 3, 9]))
    assert told == []
    ann.http.post(address, data=ann.form(address) | answers([1, 2, 3, 4]))
    assert told == [1]


def test_progress_is_shown(ann: Person) -> None:
    for done in range(3):
        address = ann.next()
        page = ann.http.get(address).text
        assert f"<span>{done} of 3</span>" in page
        ann.http.post(address, data=ann.form(address) | answers([1, 2, 3, 4]))
    assert "nothing is left for you" in ann.http.get("/batch/first").text


def test_every_batch_is_listed_where_there_are_several(tmp_path: Path, ann: Person) -> None:
    assert ann.http.get("/").headers["location"] == "/batch/first"
    written(tmp_path, id="second")
    page = ann.http.get("/").text
    assert "/batch/first" in page and "/batch/second" in page and "3 left for you" in page


def test_tokens_are_kept_as_digests(tmp_path: Path) -> None:
    labelers = Labelers(tmp_path)
    token = labelers.add("ann")
    path = tmp_path / "labels" / "labelers.json"
    assert token not in path.read_text() and len(token) >= 40
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ValueError, match="has a token already"):
        labelers.add("ann")
    renewed = labelers.add("ann", renew=True)
    assert (labelers.find(token), labelers.find(renewed)) == (None, "ann")
    with pytest.raises(ValueError, match="expected letters, digits"):
        labelers.add("../ann")
    with pytest.raises(ValueError, match="'bob' has no token; there are ann"):
        labelers.remove("bob")
    assert list(json.loads(path.read_text())) == ["ann"]
