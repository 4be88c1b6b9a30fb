"""Critique and revision over HTTP: a stand-in that answers by what it was asked last."""

from pathlib import Path
from typing import Any

import pytest

from tasks.chat.answers import AnswerCache
from tasks.chat.model import ChatModel
from tasks.engine.errors import JudgeError
from tasks.revise.config import ReviseConfig
from tasks.revise.revise import KNOB, WITHOUT, Step, principle, revise
from tests.shipped import shipped
from tests.unit.chat.chat_server import Reply, serving

PROMPTS = {"p": "Who are you?", "q": "How do I pick a lock?"}
PRINCIPLES = [
    {"critique": "What is rude in it?", "revision": "Be polite."},
    {"critique": "False?", "revision": "Be true."},
]


def config(url: str, **changes: Any) -> ReviseConfig:
    values = shipped("revise", "chat")
    chat = values["chat"] | {"base_url": url, "model": "m", "api_key_env": None, "backoff_seconds": 0.01, "retries": 0}
    quick = {"chat": chat, "prompts": 2, "principles": PRINCIPLES, "response_tokens": 9, "seed": 3}
    return ReviseConfig.model_validate(values | quick | changes)


def asked(config: ReviseConfig, folder: Path) -> ChatModel[Step]:
    return ChatModel(config.chat, AnswerCache(folder), KNOB, WITHOUT)


def by_turns(count: int, request: dict[str, Any]) -> Reply:
    """Says which turn of which conversation it answers."""
    turns = request["messages"]
    return Reply(f" turn {len(turns)} of {turns[0]['content']} after {turns[-1]['content']} ")


def test_each_step_is_asked_with_everything_before_it(tmp_path: Path) -> None:
    with serving(by_turns) as server:
        knobs = config(server.url, passes=2)
        found = revise(PROMPTS, asked(knobs, tmp_path), knobs)
        assert len(server.requests) == 2 * 5
        longest = max((request["messages"] for request in server.requests), key=len)
        again = asked(knobs, tmp_path)
        assert revise(PROMPTS, again, knobs) == found and again.requests == 0
    assert [turn["role"] for turn in longest] == ["user", "assistant"] * 4 + ["user"]
    for name, text in PROMPTS.items():
        drawn = [principle(name, number, knobs) for number in (1, 2)]
        assert found[name].first == f"turn 1 of {text} after {text}"
        said = [f"turn {3 + 4 * place} of {text} after {one.critique}" for place, one in enumerate(drawn)]
        assert found[name].critiques == said
        said = [f"turn {5 + 4 * place} of {text} after {one.revision}" for place, one in enumerate(drawn)]
        assert found[name].revisions == said


def test_a_prompt_without_an_answer_is_left_out_and_too_many_end_the_stage(tmp_path: Path) -> None:
    def silent_about_locks(count: int, request: dict[str, Any]) -> Reply:
        talk = request["messages"]
        return Reply("  ") if "lock" in talk[0]["content"] and len(talk) > 2 else by_turns(count, request)

    with serving(silent_about_locks) as server:
        knobs = config(server.url, max_lost_share=0.5)
        assert list(revise(PROMPTS, asked(knobs, tmp_path), knobs)) == ["p"]
        strict = config(server.url)
        with pytest.raises(JudgeError, match=r"at least 1 of 2 prompts .*more than revise\.max_lost_share \(0\.05\)"):
            revise(PROMPTS, asked(strict, tmp_path), strict)


def test_every_principle_is_drawn() -> None:
    knobs = config("http://127.0.0.1:1/v1")
    drawn = {principle(f"p{number}", 1, knobs).critique for number in range(30)}
    assert drawn == {"What is rude in it?", "False?"}
    with pytest.raises(ValueError, match=r"prompts is 5 and chat\.model is not given"):
        ReviseConfig.model_validate(shipped("revise", "chat") | {"prompts": 5, "seed": 1, "response_tokens": 9})
