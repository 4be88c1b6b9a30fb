"""Demonstrations by critique and revision in the whole flow, against a stand-in for a chat model."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.rlhf import rlhf
from tasks.records.data import PreparedData
from tests.integration.test_flow import miniature, ran, record_of
from tests.unit.chat.chat_server import Reply, serving


def politely(count: int, request: dict[str, Any]) -> Reply:
    """Short before the critique, shorter after it."""
    return Reply("the" if len(request["messages"]) > 3 else "the the")


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_revisions_are_demonstrations_and_are_paid_for_once(tmp_path: Path) -> None:
    with serving(politely) as server:
        chat = ("revise.chat.model=m", "revise.chat.api_key_env=null", f"revise.chat.base_url={server.url}")
        config = miniature(tmp_path, "revise.prompts=5", *chat)
        first = rlhf(config)
        asked = len(server.requests)
        assert asked == 5 * 3 and ran(rlhf(config)) == []
        rlhf(miniature(tmp_path, "revise.prompts=6", *chat))
        assert len(server.requests) == asked + 3
    before = PreparedData(tmp_path / "artifacts" / record_of(first, "data_prep"))
    after = PreparedData(tmp_path / "artifacts" / record_of(first, "revise"))
    old, new = before.demonstrations("train"), after.demonstrations("train")
    assert new[: len(old)] == old
    assert [(one.response, one.labeler_id) for one in new[len(old) :]] == [("the", "revised:m")] * 5
    assert [one.prompt for one in new[len(old) :]] == before.rl_prompts("train")[:5]
    assert list(after.rl_prompts("train")) == list(before.rl_prompts("train"))
    assert list(after.benchmarks()) == list(before.benchmarks())
    rows = [json.loads(line) for line in (after.folder / "revisions.jsonl").read_text().splitlines()]
    assert {(row["first"], *row["revisions"]) for row in rows} == {("the the", "the")}
