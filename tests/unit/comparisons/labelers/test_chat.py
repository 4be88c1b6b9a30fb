"""A chat model as labeler, asked over HTTP."""

import re
from pathlib import Path
from typing import Any

import pytest

from tasks.comparisons.labelers.chat import ChatLabeler, ranking_in
from tasks.engine.errors import JudgeError
from tests.unit.chat.chat_server import Reply, serving
from tests.unit.comparisons.labelers.asked import QUICK, config, item

ITEMS = [item("p", "aa", "a", "aaaa", "aa "), item("q", "bb", "b")]


def shown(request: dict[str, Any]) -> dict[str, str]:
    """Letter -> response, as the request shows them."""
    text = request["messages"][-1]["content"]
    return dict(re.findall(r"\[Response ([A-Z])\]\n(.*)\n\[End of response", text))


def longest_first(count: int, request: dict[str, Any]) -> Reply:
    """Equal lengths tie."""
    lengths = {letter: len(text) for letter, text in shown(request).items()}
    tiers = [
        " = ".join(letter for letter in sorted(lengths) if lengths[letter] == length)
        for length in sorted(set(lengths.values()), reverse=True)
    ]
    return Reply(f"A is not > B here. [[{' > '.join(tiers)}]]")


def labeler(url: str, folder: Path, **changes: Any) -> ChatLabeler:
    chat = QUICK | {"base_url": url} | changes
    return ChatLabeler(config(labelers=["chat"], chat=chat).chat, folder, 5)


def test_responses_are_ranked_by_what_the_model_prefers_wherever_they_are_shown(tmp_path: Path) -> None:
    with serving(longest_first) as server:
        found = labeler(server.url, tmp_path).label(ITEMS)
        assert [found[one.item_id][0].ranks for one in ITEMS] == [[3, 4, 1, 2], [1, 2]]
        assert found["train/p"][0].labeler_id == "chat:ranker"
        assert len(server.requests) == 4
        again = labeler(server.url, tmp_path)
        assert again.label(ITEMS) == found and len(server.requests) == 4
        assert (again.spent()["labelers/chat_requests"], again.measured()) == (0, {"agreement/chat_orders": 1.0})
        orders = [list(shown(request).values()) for request in server.requests if "what is p" in str(request)]
        assert orders[0] == orders[1][::-1]
        assert "- A longer response is not better" in server.requests[0]["messages"][-1]["content"]


def test_a_model_that_only_knows_places_ranks_nothing(tmp_path: Path) -> None:
    def first(count: int, request: dict[str, Any]) -> Reply:
        return Reply(f"[[{' > '.join(shown(request))}]]")

    with serving(first) as server:
        asked = labeler(server.url, tmp_path)
        found = asked.label(ITEMS)
    assert [found[one.item_id][0].ranks for one in ITEMS] == [[1, 1, 1, 1], [1, 1]]
    assert asked.measured() == {"agreement/chat_orders": 0.0}


def test_too_many_prompts_without_a_ranking_fail_and_a_few_are_left_out(tmp_path: Path) -> None:
    def stubborn(count: int, request: dict[str, Any]) -> Reply:
        return Reply("I like them all.") if "what is q" in str(request) else longest_first(count, request)

    with serving(stubborn) as server:
        with pytest.raises(
            JudgeError, match=r"at least 1 of 2 prompts are without a ranking .*max_unranked_share \(0.05\)"
        ):
            labeler(server.url, tmp_path, retries=1).label(ITEMS)
        found = labeler(server.url, tmp_path, retries=0, max_unranked_share=0.5).label(ITEMS)
    assert (len(found["train/p"]), found["train/q"]) == (1, [])


def test_nobody_at_the_address_is_said_before_anything_is_sampled(tmp_path: Path) -> None:
    with pytest.raises(
        JudgeError, match=r"comparisons.chat.base_url: .* does not answer .*leave chat out of comparisons.labelers"
    ):
        labeler(QUICK["base_url"], tmp_path).check()


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        ("[[B > A = C]]", [2, 1, 2]),
        ("[[A=B=C]]", [1, 1, 1]),
        ("first [[A > B > C]], no: [[C>B>A]].", [3, 2, 1]),
        ("[[A > B]]", None),
        ("[[A > B > C > D]]", None),
        ("[[A > B > B]]", None),
        ("[[A > C > A = B]]", None),
        ("A > B > C", None),
        ("", None),
    ],
)
def test_the_last_whole_ranking_counts(text: str, ranks: list[int] | None) -> None:
    assert ranking_in(text, 3) == ranks


def test_texts_that_look_like_placeholders_stay_texts(tmp_path: Path) -> None:
    with serving(longest_first) as server:
        labeler(server.url, tmp_path).label([item("r", "{prompt}", "{principles} and more")])
        assert sorted(shown(server.requests[0]).values()) == ["{principles} and more", "{prompt}"]
