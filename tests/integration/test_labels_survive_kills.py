"""The labelling page is killed at any moment; no label that it confirmed is lost, and none is there twice."""

import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from flows.label.tokens import Labelers
from tasks.records.labels import labels_file, read_labels
from tests.unit.label.batches import item, written
from tests.unit.label.server import free_port, start

pytestmark = pytest.mark.slow
KILLS = 20


class Crowd(threading.Thread):
    """A labeler who submits each item until the page confirms it."""

    def __init__(self, base: str, token: str) -> None:
        super().__init__()
        self.base, self.token = base, token
        self.confirmed: dict[str, int] = {}
        self.repeated = 0
        self.enough = threading.Event()

    def run(self) -> None:
        rng = random.Random(self.token)
        while not self.enough.is_set():
            try:
                with httpx.Client(base_url=self.base, timeout=5) as http:
                    http.cookies.set(f"plumbline_labeler_{httpx.URL(self.base).port}", self.token)
                    self._work(http, rng)
            except httpx.HTTPError:
                time.sleep(0.05)

    def _work(self, http: httpx.Client, rng: random.Random) -> None:
        while not self.enough.is_set():
            page = http.get("/batch/first", follow_redirects=True)
            if not (found := re.search(r'name="form" value="([^"]+)"', page.text)):
                self.enough.set()
                return
            fields = {"form": found[1]} | {f"rank-{n}": str(rng.randint(1, 4)) for n in range(4)}
            fields |= {f"quality-{n}": str(rng.randint(1, 7)) for n in range(4)}
            while not self.enough.is_set():
                try:
                    reply = http.post(page.url.path, data=fields)
                except httpx.HTTPError:
                    self.repeated += 1
                    time.sleep(0.02)
                    continue
                if reply.status_code == 409:  # it was lent anew after the restart, to somebody else
                    break
                assert reply.status_code == 303, reply.text
                self.confirmed[page.url.path.rpartition("/")[2]] = 1
                break


def wait_for_more(people: Mapping[str, Crowd], labels: int) -> None:
    """Wait until the page has confirmed so many more."""
    wanted, end = sum(len(person.confirmed) for person in people.values()) + labels, time.monotonic() + 120
    while sum(len(person.confirmed) for person in people.values()) < wanted:
        assert time.monotonic() < end, "the page confirms nothing any more"
        time.sleep(0.002)


def test_twenty_kills_lose_no_label_and_double_none(tmp_path: Path) -> None:
    items = [item(f"item-{n:05d}", shared=n % 5 == 0) for n in range(1_500)]
    batch = written(tmp_path, *items, shared_share=0.2)
    port, rng = free_port(), random.Random(5)
    people = {name: Crowd(f"http://127.0.0.1:{port}", Labelers(tmp_path).add(name)) for name in ("ann", "bob")}
    process = start(tmp_path, port)
    for person in people.values():
        person.start()
    for _ in range(KILLS):
        wait_for_more(people, rng.randint(2, 20))
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.wait()
        process = start(tmp_path, port)
    wait_for_more(people, 2)
    for person in people.values():
        person.enough.set()
        person.join()
    process.kill()
    process.wait()
    kept = {(label.labeler, label.item_id) for label in read_labels(batch)}
    ids = list(batch.items)
    for name, person in people.items():
        confirmed = {(name, ids[int(number) - 1]) for number in person.confirmed}
        assert confirmed <= kept
        lines = labels_file(batch, name).read_text().splitlines()
        times = Counter(json.loads(line)["item_id"] for line in lines)
        assert set(times.values()) == {1}
    assert sum(person.repeated for person in people.values()) > 0
