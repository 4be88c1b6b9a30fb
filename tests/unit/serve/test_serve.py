"""A model folder as a chat model: what is asked over HTTP is what the model answers in the terminal."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

from flows.serve import __main__ as command
from flows.serve import respondent as served
from flows.serve.app import create_server
from flows.serve.respondent import Respondent
from tasks.chat.answers import AnswerCache
from tasks.chat.model import ChatModel
from tasks.engine.errors import ModelError
from tests.unit.chat.chat_server import chat_config
from tests.unit.label.server import free_port
from tests.unit.test_chat import model_folder, partner

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "talker")


@pytest.fixture
def respondent(folder: Path) -> Respondent:
    return Respondent(folder, "cpu", together=4, seed=1)


@pytest.fixture
def http(respondent: Respondent) -> TestClient:
    return TestClient(create_server(respondent), base_url="http://127.0.0.1:8000")


@pytest.fixture
def address(respondent: Respondent) -> Iterator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_server(respondent), port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}/v1"
    server.should_exit = True
    thread.join()


def request(respondent: Respondent, **changes: Any) -> dict[str, Any]:
    given = {"model": respondent.name, "messages": TALK, "max_tokens": 12, "temperature": 0.0}
    return {name: value for name, value in (given | changes).items() if value is not None}


def test_the_answer_is_the_one_of_the_terminal(folder: Path, http: TestClient, respondent: Respondent) -> None:
    in_terminal = partner(folder, system="Be brief.", temperature=0.0)
    said = {question: list(in_terminal.answer(question))[-1].strip() for question in ("Hi", "Bye")}
    talk = [*TALK[:2], {"role": "assistant", "content": said["Hi"]}, TALK[3]]
    reply = http.post("/v1/chat/completions", json=request(respondent, messages=talk)).json()
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": said["Bye"]}
    assert said["Bye"]
    assert reply["choices"][0]["finish_reason"] == "length" and reply["usage"]["completion_tokens"] == 12
    assert reply["usage"]["total_tokens"] == 12 + reply["usage"]["prompt_tokens"]


def test_what_asks_chat_models_asks_this_one(address: str, respondent: Respondent, tmp_path: Path) -> None:
    config = chat_config(address, model=respondent.name, max_tokens=9, retries=0)
    model: ChatModel[str] = ChatModel(config, AnswerCache(tmp_path / "kept"), "knob", "leave it out")
    model.check()
    questions = {text: [{"role": "user", "content": text}] for text in ("one", "two", "three", "four five", "six")}
    found = model.ask(questions, lambda _, text: True, lambda lost: None)
    alone = {text: respondent.answer(respondent.asked([served.Turn("user", text)], 9, 0.0)).text for text in questions}
    assert {text: answer and answer.text for text, answer in found.items()} == alone
    assert model.requests == 5 and not model.failures


def test_an_answer_ends_with_its_turn(respondent: Respondent) -> None:
    end = respondent._layout.end_of_turn
    hello = respondent._tokenizer("Hello", add_special_tokens=False)["input_ids"]
    ended = [*hello, respondent._tokenizer.convert_tokens_to_ids(end), *hello]
    assert respondent._read(ended) == served.ChatAnswer("Hello", len(hello), True)
    assert respondent._read(hello) == served.ChatAnswer("Hello", len(hello), False)


def test_questions_that_wait_are_answered_together(respondent: Respondent, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    busy = threading.Event()

    def slowly(model: object, prompts: list[Any], **_: Any) -> Any:
        batches.append(len(prompts))
        busy.set()
        while len(respondent._waiting) < {1: 6, 2: 2}.get(len(batches), 0):
            time.sleep(0.01)
        return served.Sampled([list(prompt[:2]) for prompt in prompts], None)

    monkeypatch.setattr(served, "sample", slowly)
    one, other = (
        respondent.asked([served.Turn("user", text)], 5, temperature) for text, temperature in (("a", 0.0), ("b", 1.0))
    )
    with ThreadPoolExecutor(7) as threads:
        first = threads.submit(respondent.answer, one)
        busy.wait()
        rest = [threads.submit(respondent.answer, asked) for asked in (one, one, one, one, one, other)]
        texts = [future.result().text for future in (first, *rest)]
    assert sorted(batches[1:]) == [1, 1, 4] and batches[0] == 1  # four side by side at most; another temperature waits
    assert len(set(texts)) == 1


def test_a_failure_reaches_everybody_who_waits(respondent: Respondent, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise ModelError("no room")

    monkeypatch.setattr(served, "sample", fails)
    http = TestClient(create_server(respondent), base_url="http://127.0.0.1:8000")
    reply = http.post("/v1/chat/completions", json=request(respondent))
    assert (reply.status_code, reply.json()["error"]["message"]) == (500, "no room")
    assert respondent._waiting == []


@pytest.mark.parametrize(
    ("changes", "status", "sentence"),
    [
        ({"model": "gpt"}, 404, "found 'gpt', expected 'talker-"),
        ({"messages": []}, 400, "messages: "),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages.0.role: "),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages.0.content: "),
        (
            {"messages": [{"role": "user", "content": "long " * 400}]},
            400,
            "expected at most the model's context of 256",
        ),
        ({"max_tokens": 300}, 400, "300 of answer, expected at most the model's context of 256"),
        ({"max_tokens": 0}, 400, "max_tokens: "),
        ({"temperature": -1}, 400, "temperature: "),
        ({"temperature": 1e-300}, 400, "temperature: "),
        ({"top_p": 0.9}, 400, "top_p: "),
        ({"stream": True}, 400, "stream: "),
        ({"n": 2}, 400, "n: "),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            400,
            "found the part {'type': 'image_url'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            400,
            "found the part {'type': 'text'",
        ),
        (
            {"messages": [{"role": "user", "content": "\ud83d"}]},
            400,
            "messages.0.content: Value error, found half of a",
        ),
    ],
)
def test_what_is_not_read_is_refused(
    http: TestClient, respondent: Respondent, changes: dict[str, Any], status: int, sentence: str
) -> None:
    body = json.dumps(request(respondent, **changes))  # with escapes, which a client's own JSON may not write
    reply = http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == status
    assert sentence in reply.json()["error"]["message"]


def test_a_turn_may_come_in_parts(http: TestClient, respondent: Respondent) -> None:
    in_parts = [
        turn | {"content": [{"type": "text", "text": half} for half in halves(turn["content"])]} for turn in TALK
    ]
    whole, parts = (
        http.post("/v1/chat/completions", json=request(respondent, messages=talk)).json() for talk in (TALK, in_parts)
    )
    assert parts["choices"] == whole["choices"] and parts["usage"] == whole["usage"]


def halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def test_a_length_is_not_needed(http: TestClient, respondent: Respondent) -> None:
    reply = http.post("/v1/chat/completions", json=request(respondent, max_tokens=None)).json()
    assert reply["usage"]["completion_tokens"] <= 128  # half of the context
    assert (
        http.post("/v1/chat/completions", json=request(respondent, max_tokens=None, max_completion_tokens=3)).json()[
            "usage"
        ]["completion_tokens"]
        == 3
    )


def test_only_this_machine_may_ask(http: TestClient, respondent: Respondent) -> None:
    assert http.get("/v1/models", headers={"host": "evil.example"}).status_code == 400
    listed = http.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == [respondent.name]
    page = http.post("/v1/chat/completions", content="{}", headers={"content-type": "text/plain"})
    assert page.status_code == 400
    assert http.get("/docs").status_code == 404


def test_other_weights_have_another_name(tmp_path: Path, respondent: Respondent) -> None:
    other = Respondent(model_folder(tmp_path / "more" / "talker", seed=1), "cpu", together=1, seed=1)
    again = Respondent(model_folder(tmp_path / "again" / "talker"), "cpu", together=1, seed=1)
    assert other.name.startswith("talker-") and other.name != respondent.name == again.name


def test_a_model_without_chat_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="found no chat template, expected one"):
        Respondent(model_folder(tmp_path, template=False), "cpu", together=1, seed=1)


def test_the_command_tells_how_to_ask(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[dict[str, Any]] = []
    monkeypatch.setattr("uvicorn.run", lambda app, **how: started.append(how))
    port = free_port()
    command.main([f"model={folder}", "--port", str(port)])
    told = capsys.readouterr().out
    assert f"comparisons.chat.base_url=http://127.0.0.1:{port}/v1 comparisons.chat.model=talker-" in told
    assert (started[0]["host"], started[0]["port"]) == ("127.0.0.1", port)
    with pytest.raises(SystemExit, match="error: model: found no model folder"):
        command.main(["model=nowhere", "--port", str(port)])
    with pytest.raises(SystemExit, match="error: --device: found 'banana', expected cpu, cuda or cuda:N"):
        command.main([f"model={folder}", "--port", str(port), "--device", "banana"])


def test_a_body_that_is_no_json_is_told_with_its_place(http: TestClient) -> None:
    reply = http.post("/v1/chat/completions", content='{"model": ', headers={"content-type": "application/json"})
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith("body: found no JSON at character 10 (")


SLOWLY = """
import runpy, sys, time
from flows.serve import respondent
respondent.sample = lambda *_, **__: print("asked", flush=True) or time.sleep(120)
sys.argv = ["serve", *sys.argv[1:]]
runpy.run_module("flows.serve", run_name="__main__")
"""


def test_an_answer_under_way_does_not_keep_the_server(folder: Path, respondent: Respondent) -> None:
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, f"model={folder}", "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # deaf to it where the tests run behind nohup
    )
    assert server.stdout is not None
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask_when_it_is_up, port, request(respondent))
        try:
            assert "asked\n" in iter(server.stdout.readline, "")
            server.send_signal(signal.SIGINT)
            _, said = server.communicate(timeout=60)
        finally:
            server.kill()
        assert server.returncode == 0 and "Traceback" not in said
        assert asked.result() in (503, None)


def ask_when_it_is_up(port: int, body: dict[str, Any]) -> int | None:
    """The status of the reply, None without one."""
    for _ in range(600):
        try:
            return httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=90).status_code
        except httpx.ConnectError:
            time.sleep(0.2)
        except httpx.TransportError:
            return None
    raise AssertionError("the server did not start")
