"""The labelers of the embedded world at the page: what they rank over HTTP is what they rank when asked directly."""

import random
import re
from pathlib import Path

from starlette.testclient import TestClient

from flows.label.answers import dense
from flows.label.app import create_app
from flows.label.desk import shown_order
from flows.label.tokens import Labelers
from tasks.records.labels import Item, Origin, choose_shared, comparisons_of, read_batch
from tasks.sandbox.demonstrations import careful_reply, flawed_reply
from tasks.sandbox.labelers import Panel, Simulated
from tasks.sandbox.prompts import prompts
from tasks.sandbox.world import World
from tests.unit.label.batches import written

PROMPTS, LABELERS, SHARE = 24, 3, 0.25


def asked_directly(labeler: Simulated, item: Item) -> list[int]:
    noise = random.Random(f"{labeler.labeler_id}/{item.item_id}")
    return labeler.rank(item.origin.prompt, item.responses, [True] * len(item.responses), noise)


def label_all(http: TestClient, labeler: Simulated, home: Path) -> int:
    """Answer what the page shows until nothing is left; how many items that were."""
    items = list(read_batch(home / "labels" / "first").items.values())
    answered = 0
    while found := re.search(r'name="form" value="([^"]+)"', (page := http.get("/batch/first")).text):
        item = items[int(page.url.path.rpartition("/")[2]) - 1]
        ranks = asked_directly(labeler, item)
        fields = {"form": found[1]}
        for place, which in enumerate(shown_order(labeler.labeler_id, item)):
            fields |= {f"rank-{place}": str(ranks[which]), f"quality-{place}": "4"}
        assert http.post(page.url.path, data=fields, follow_redirects=False).status_code == 303
        answered += 1
    return answered


def test_the_page_changes_nothing_that_the_crowd_ranks(tmp_path: Path) -> None:
    world = World.from_seed(0)
    asked = prompts(world, PROMPTS, 5, 0.2)
    shared = choose_shared([prompt.prompt_id for prompt in asked], SHARE)
    items = [
        Item(
            item_id=prompt.prompt_id,
            text=prompt.text,
            responses=[
                (careful_reply, flawed_reply)[n % 2](world, prompt, random.Random(f"{n}/{prompt.prompt_id}"))
                for n in range(4 + place % 6)
            ],
            shared=prompt.prompt_id in shared,
            origin=Origin(prompt=prompt),
        )
        for place, prompt in enumerate(asked)
    ]
    batch = written(tmp_path, *items, shared_share=SHARE)
    app, answered = create_app(tmp_path), {}
    for labeler in Panel.of(world, 0).training[:LABELERS]:
        http = TestClient(app, base_url="http://127.0.0.1:4300")
        http.get("/enter", params={"token": Labelers(tmp_path).add(labeler.labeler_id)})
        answered[labeler.labeler_id] = label_all(http, labeler, tmp_path)
    crowd = {labeler.labeler_id: labeler for labeler in Panel.of(world, 0).training}
    found = comparisons_of(batch)
    assert len(found) == PROMPTS + (LABELERS - 1) * len(shared) == sum(answered.values())
    for comparison in found:
        item = batch.items[comparison.prompt.prompt_id]
        assert comparison.completions == item.responses
        assert comparison.ranks == dense(asked_directly(crowd[comparison.labeler_id], item))
    assert shared == {
        item_id
        for item_id in batch.items
        if sum(comparison.prompt.prompt_id == item_id for comparison in found) == LABELERS
    }
