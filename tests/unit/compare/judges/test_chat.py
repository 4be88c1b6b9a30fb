import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.chat.answers import Answer, AnswerCache
from tasks.chat.model import NO_VERDICT
from tasks.compare.judges.chat import ChatJudge
from tasks.compare.judges.config import ChatJudgeConfig
from tasks.engine.errors import ConfigError, JudgeError
from tasks.results.judge import Question
from tests.unit.chat.chat_server import ChatServer, Reply, chat_config, longer_wins, serving, texts
from tests.unit.results.test_judge import pairs

KEY = "sk-secret-0123456789"
MINE, THEIRS = ["long answer", "a", "same", "much longer answer"], ["short", "bb", "same", "b"]


def judge(server: ChatServer, folder: Path, **changes: Any) -> ChatJudge:
    return ChatJudge("chat", chat_config(server.url, **changes), AnswerCache(folder))


def test_pairs_are_judged_in_both_orders_and_a_second_run_asks_nothing(tmp_path: Path) -> None:
    with serving(longer_wins) as server:
        first = judge(server, tmp_path, price_per_million_prompt_tokens=2.0, price_per_million_completion_tokens=10.0)
        found = first.judge(pairs(MINE, THEIRS))
        assert found.outcomes.tolist() == [1, 0, 0.5, 1]
        assert (found.orders.identical, found.orders.inconsistent, found.orders.position_bias) == (1, 0, 0.0)
        assert len(server.requests) == first.requests == 6
        assert sorted(map(texts, server.requests)) == sorted(
            pair for a, b in zip(MINE, THEIRS, strict=True) if a != b for pair in ((a, b), (b, a))
        )
        usage = first.usage
        assert (usage.questions, usage.prompt_tokens, usage.completion_tokens) == (6, 600, 42)
        assert usage.cost == pytest.approx((600 * 2 + 42 * 10) / 1e6)
        second = judge(server, tmp_path, price_per_million_prompt_tokens=2.0, price_per_million_completion_tokens=10.0)
        np.testing.assert_array_equal(second.judge(pairs(MINE, THEIRS)).outcomes, found.outcomes)
        assert (second.requests, len(server.requests), second.usage) == (0, 6, usage)


def test_without_prices_no_cost_is_made_up(tmp_path: Path) -> None:
    with serving(longer_wins) as server:
        asked = judge(server, tmp_path)
        asked.judge(pairs(["aa"], ["b"]))
    assert asked.usage.cost is None


@pytest.mark.parametrize(
    "change", [{"model": "judge-2"}, {"temperature": 0.5}, {"max_tokens": 9}, {"system": "Be kind."}]
)
def test_what_changes_the_question_is_asked_again(change: dict[str, Any], tmp_path: Path) -> None:
    with serving(longer_wins) as server:
        judge(server, tmp_path).judge(pairs(["aa"], ["b"]))
        judge(server, tmp_path, **change).judge(pairs(["aa"], ["b"]))
        assert len(server.requests) == 4


def test_an_always_first_judge_gives_exactly_one_half_and_position_bias_one(tmp_path: Path) -> None:
    with serving(lambda count, request: Reply("[[A]]")) as server:
        found = judge(server, tmp_path).judge(pairs([f"a{i}" for i in range(10)], [f"b{i}" for i in range(10)]))
    assert found.outcomes.tolist() == [0.5] * 10
    assert (found.orders.position_bias, found.orders.inconsistent) == (1.0, 10)


def test_requests_run_side_by_side_up_to_the_limit(tmp_path: Path) -> None:
    with serving(lambda count, request: longer_wins(count, request)._replace(seconds=0.05)) as server:
        judge(server, tmp_path, concurrency=3).judge(pairs([f"a{i}" for i in range(6)], [f"bb{i}" for i in range(6)]))
        assert server.most_at_once == 3


def test_a_stumbling_server_is_asked_again(tmp_path: Path) -> None:
    def behave(count: int, request: dict[str, Any]) -> Reply:
        trouble = (
            Reply(status=500, body="oops"),
            Reply(body='{"choices": ['),
            Reply(body='{"choices": []}'),
            Reply(body='{"choices": [{"message": {"content": null}}]}'),
        )
        return trouble[count] if count < len(trouble) else longer_wins(count, request)

    with serving(behave) as server:
        asked = judge(server, tmp_path, concurrency=1)
        found = asked.judge(pairs(["aa"], ["b"]))
        assert found.outcomes.tolist() == [1]
        assert asked.failures == {"HTTP 500": 1, "not a chat completion": 3}
        assert len(server.requests) == 6


def test_a_slow_server_times_out_and_is_asked_again(tmp_path: Path) -> None:
    def behave(count: int, request: dict[str, Any]) -> Reply:
        return longer_wins(count, request)._replace(seconds=1.0 if count == 0 else 0.0)

    with serving(behave) as server:
        asked = judge(server, tmp_path, timeout_seconds=0.2, concurrency=1)
        assert asked.judge(pairs(["aa"], ["b"])).outcomes.tolist() == [1]
    assert asked.failures == {"timeout": 1}


def test_retry_after_is_obeyed(tmp_path: Path) -> None:
    def behave(count: int, request: dict[str, Any]) -> Reply:
        busy = Reply(status=429, body="{}", headers=(("Retry-After", "0.4"),))
        return busy if count == 0 else longer_wins(count, request)

    with serving(behave) as server:
        asked = judge(server, tmp_path, concurrency=1)
        assert asked.judge(pairs(["aa"], ["b"])).outcomes.tolist() == [1]
        assert asked.failures == {"HTTP 429": 1}
        assert server.arrived[1] - server.arrived[0] >= 0.4


def test_the_wait_doubles_without_retry_after(tmp_path: Path) -> None:
    with serving(
        lambda count, request: Reply(status=503, body="") if count < 3 else longer_wins(count, request)
    ) as server:
        judge(server, tmp_path, concurrency=1, backoff_seconds=0.1).judge(pairs(["aa"], ["b"]))
        waits = np.diff(server.arrived[:4])
    assert all(wait >= expected for wait, expected in zip(waits, (0.1, 0.2, 0.4), strict=True))


def test_an_answer_without_a_verdict_is_counted_asked_again_and_then_left_out(tmp_path: Path) -> None:
    def behave(count: int, request: dict[str, Any]) -> Reply:
        first, second = texts(request)
        if "never" in first + second:
            return Reply("I would rather not say.")
        if "once" in first and sum(texts(seen) == (first, second) for seen in server.requests) == 1:
            return Reply("Both are fine, [[D]].")
        return longer_wins(count, request)

    given = pairs(["never!", "once", *(f"aa{i}" for i in range(8))], ["b", "b", *(f"c{i}" for i in range(8))])
    with serving(behave) as server:
        asked = judge(server, tmp_path, retries=2, max_unjudged_share=0.1)
        found = asked.judge(given)
        np.testing.assert_array_equal(found.outcomes, [np.nan] + [1.0] * 9)
        assert (found.orders.unjudged, found.orders.verdicts, found.orders.malformed) == (1, 18, 7)
        assert asked.failures == {NO_VERDICT: 7}
        again = judge(server, tmp_path, retries=2, max_unjudged_share=0.1)
        repeated = again.judge(given)
        assert again.requests == 6  # only what has no verdict
        assert repeated.orders == found.orders


def test_too_many_pairs_without_a_verdict_fail_clearly_and_early(tmp_path: Path) -> None:
    with serving(lambda count, request: Reply("Hm.")) as server:
        asked = judge(server, tmp_path, retries=0, concurrency=2)
        with pytest.raises(
            JudgeError, match=r"3 of 40 pairs are without a verdict.*max_unjudged_share \(0.05\)"
        ) as raised:
            asked.judge(pairs([f"a{i}" for i in range(40)], [f"b{i}" for i in range(40)])[:40])
        assert NO_VERDICT in str(raised.value)
        assert len(server.requests) < 20


def test_calling_off_ends_waiting_threads_at_once(tmp_path: Path) -> None:
    def behave(count: int, request: dict[str, Any]) -> Reply:
        return Reply("Hm.") if "bad" in str(request) else Reply(status=429, body="", headers=(("Retry-After", "60"),))

    with serving(behave) as server:
        asked = judge(server, tmp_path, retries=1, backoff_seconds=0.01)
        start = time.monotonic()
        with pytest.raises(JudgeError, match="without a verdict"):
            asked.judge(pairs(["bad1", "bad2", "x"], ["b", "b", "y"]))
        assert time.monotonic() - start < 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("judge")]


def test_a_refused_request_concerns_its_pair_alone(tmp_path: Path) -> None:
    def behave(count: int, request: dict[str, Any]) -> Reply:
        return Reply(status=400, body="too long") if "huge" in str(request) else longer_wins(count, request)

    with serving(behave) as server:
        asked = judge(server, tmp_path, max_unjudged_share=0.5)
        found = asked.judge(pairs(["huge", "aa"], ["b", "b"]))
    np.testing.assert_array_equal(found.outcomes, [np.nan, 1.0])
    assert asked.failures == {"HTTP 400": 2}


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "refuses the API key.*JUDGE_KEY is wrong"), (404, "knows no chat completions of model 'judge-1'")],
)
def test_a_wrong_key_or_model_stops_at_once(
    status: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with serving(lambda count, request: Reply(status=status, body=f"no {KEY} here")) as server:
        asked = judge(server, tmp_path, api_key_env="JUDGE_KEY", concurrency=1)
        with pytest.raises(JudgeError, match=message) as raised:
            asked.judge(pairs(["aa", "aaa"], ["b", "b"]))
        assert len(server.requests) == 1
    assert KEY not in str(raised.value)


def test_the_key_is_sent_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with serving(longer_wins) as server:
        config = chat_config(server.url, api_key_env="JUDGE_KEY")
        ChatJudge("chat", config, AnswerCache(tmp_path)).judge(pairs(["aa"], ["b"]))
        assert set(server.keys) == {f"Bearer {KEY}"}
    assert KEY not in caplog.text
    assert KEY not in config.model_dump_json()
    kept = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) == 2
    assert not any(KEY in text for text in kept)


def test_texts_that_look_like_placeholders_or_verdicts_stay_texts(tmp_path: Path) -> None:
    with serving(lambda count, request: Reply("[[A]] at first sight, but [[b]]")) as server:
        asked = judge(server, tmp_path)
        sent = asked.messages(Question("{first}", "[[A]] {second} {0}", "plain"))[-1]["content"]
        assert "[Request]\n{first}\n" in sent
        assert "[Answer A]\n[[A]] {second} {0}\n" in sent
        assert asked.verdict("[[A]] at first sight, but [[b]]") == -1
        assert asked.verdict("A") is None


def test_only_the_first_pairs_of_a_row_are_asked_about(tmp_path: Path) -> None:
    with serving(longer_wins) as server:
        found = judge(server, tmp_path, pairs_per_row=2).judge(pairs(MINE, THEIRS))
        assert len(server.requests) == 4
    np.testing.assert_array_equal(found.outcomes, [1, 0, np.nan, np.nan])
    assert (found.orders.pairs, found.orders.unjudged) == (2, 0)


def test_a_damaged_answer_on_disk_counts_as_absent(tmp_path: Path) -> None:
    cache, request = AnswerCache(tmp_path), {"model": "m", "messages": []}
    answer = Answer(text="[[A]]", prompt_tokens=1, completion_tokens=1, malformed=0)
    assert cache.find(request) is None
    cache.keep(request, answer)
    assert cache.find(request) == answer
    (path,) = list(tmp_path.rglob("*.json"))
    for damage in ("", '{"request":', "[]", json.dumps({"request": {"model": "n"}, "answer": answer.model_dump()})):
        path.write_text(damage)
        assert cache.find(request) is None
    cache.keep(request, answer)
    assert cache.find(request) == answer
    assert [item.name for item in tmp_path.rglob("*") if item.is_file()] == [path.name]


def check(config: ChatJudgeConfig) -> None:
    ChatJudge("chat", config, AnswerCache(Path("nowhere"))).check()


def test_preflight_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with serving(longer_wins) as server:
        with pytest.raises(ConfigError, match="the environment variable JUDGE_KEY is not set"):
            check(chat_config(server.url, api_key_env="JUDGE_KEY"))
        check(chat_config(server.url))
        server.models_status = 404  # no list of models, but somebody answers
        check(chat_config(server.url))
        server.models_status = 401
        with pytest.raises(JudgeError, match="api_key_env is null, and the server wants a key"):
            check(chat_config(server.url))
        server.models_status = 502
        with pytest.raises(JudgeError, match="answers HTTP 502"):
            check(chat_config(server.url))
        assert not server.requests
        gone = server.url
    with pytest.raises(JudgeError, match="does not answer"):
        check(chat_config(gone))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_url": "ftp://host"}, "expected http"),
        ({"base_url": "https://user:pw@host/v1"}, "the address holds a password"),
        ({"base_url": "https://host/v1?key=1"}, "a secret belongs into the environment"),
        ({"template": "{prompt} {first}"}, "lacks {second}"),
        ({"verdict_pattern": "(A)|(B)"}, "has 2 groups"),
        ({"verdict_pattern": "["}, "no regular expression"),
        ({"verdicts": {"A": "first", "B": "second"}}, "never says tie"),
        ({"verdicts": {"A": "first", "a": "second", "C": "tie"}}, "differ only in upper and lower case"),
        ({"price_per_million_prompt_tokens": 1.0}, "one of the two prices is null"),
    ],
)
def test_a_judge_that_cannot_work_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chat_config("http://127.0.0.1:1/v1", **change) if "base_url" not in change else chat_config(**change)
