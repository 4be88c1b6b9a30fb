"""A chat model as reward: a number in its answer, asked once, and no response without one."""

from pathlib import Path
from typing import Any

import pytest

from tasks.engine.errors import ConfigError, JudgeError
from tasks.rewards.chat import ChatReward
from tasks.rewards.config import ChatPart
from tests.unit.chat.chat_server import Reply, serving

VALUES: dict[str, Any] = {
    "name": "polite",
    "kind": "chat",
    "weight": 1.0,
    "model": "judge-1",
    "api_key_env": None,
    "temperature": 0.0,
    "max_tokens": 64,
    "system": "You grade answers.",
    "template": "{prompt}\n---\n{response}\n---\nEnd with 'score: <0 to 10>'.",
    "score_pattern": r"score: (-?[\d.]+)",
    "concurrency": 4,
    "timeout_seconds": 5.0,
    "retries": 1,
    "backoff_seconds": 0.01,
}


def part(url: str, **changes: Any) -> ChatPart:
    return ChatPart.model_validate(VALUES | {"base_url": url} | changes)


def length(count: int, request: dict[str, Any]) -> Reply:
    response = request["messages"][-1]["content"].split("\n---\n")[1]
    return Reply(f"score: 1 would be too little; score: {len(response)}.5")


def test_the_last_number_counts_and_equal_questions_are_asked_once(tmp_path: Path) -> None:
    with serving(length) as server:
        reward = ChatReward(part(server.url), tmp_path)
        assert reward.score(["q", "q", "q"], ["abc", "{prompt}", "abc"]) == [3.5, 8.5, 3.5]
        assert len(server.requests) == 2
        assert server.requests[0]["messages"][0] == {"role": "system", "content": "You grade answers."}
        assert ChatReward(part(server.url), tmp_path).score(["q"], ["abc"]) == [3.5]
        assert len(server.requests) == 2


@pytest.mark.parametrize("said", ["I like it.", "score: .", "score: 1.2.3"])
def test_a_response_without_a_number_ends_the_stage(said: str, tmp_path: Path) -> None:
    with serving(lambda count, request: Reply(said)) as server:
        reward = ChatReward(part(server.url), tmp_path)
        with pytest.raises(
            JudgeError, match=r"part polite: a response is left without a score \(no verdict in the answer"
        ):
            reward.score(["q"], ["abc"])
        assert len(server.requests) == 2  # once more


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        JudgeError, match=r"^ppo\.rewards part polite\.base_url: .* does not answer .* take this part out"
    ):
        ChatReward(part("http://127.0.0.1:9/v1"), tmp_path).model.check()
    monkeypatch.delenv("REWARD_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"^ppo\.rewards part polite\.api_key_env: .* REWARD_KEY is not set"):
        ChatReward(part("http://127.0.0.1:9/v1", api_key_env="REWARD_KEY"), tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"template": "{response}"}, "template lacks {prompt}"),
        ({"score_pattern": "score"}, "score_pattern has 0 groups"),
        ({"score_pattern": "("}, "is no regular expression"),
    ],
)
def test_what_cannot_be_asked(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        part("http://127.0.0.1:9/v1", **change)
    assert sentence in str(refused.value)
