"""A real HTTP server that speaks the chat-completions protocol, and misbehaves on demand."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from tasks.compare.judges.config import ChatJudgeConfig
from tests.shipped import CONF


class Reply(NamedTuple):
    """What the server answers to one request."""

    text: str = ""
    status: int = 200
    body: str | None = None
    """Sent as it is, instead of a chat completion with ``text``."""
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0


class ChatServer:
    """Counts and keeps what it is asked."""

    def __init__(self, behave: Callable[[int, dict[str, Any]], Reply]) -> None:
        self.behave = behave
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.arrived: list[float] = []
        self.most_at_once = self._now = 0
        self.models_status = 200
        self.url = ""
        self.lock = threading.Lock()

    def take(self, request: dict[str, Any], key: str) -> Reply:
        with self.lock:
            count = len(self.requests)
            self.requests.append(request)
            self.keys.append(key)
            self.arrived.append(time.monotonic())
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        reply = self.behave(count, request)
        time.sleep(reply.seconds)
        with self.lock:
            self._now -= 1
        return reply


@contextmanager
def serving(behave: Callable[[int, dict[str, Any]], Reply]) -> Iterator[ChatServer]:
    """The server on a free port of this machine."""
    server = ChatServer(behave)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(server.models_status, json.dumps({"object": "list", "data": []}), ())

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = server.take(request, self.headers.get("Authorization", ""))
            said = {"choices": [{"index": 0, "message": {"role": "assistant", "content": reply.text}}]}
            usage = {"usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}}
            body = json.dumps({**said, **usage}) if reply.body is None else reply.body
            self.answer(reply.status, body, reply.headers)

        def answer(self, status: int, body: str, headers: tuple[tuple[str, str], ...]) -> None:
            try:
                self.send_response(status)
                for name, value in (
                    ("Content-Type", "application/json"),
                    ("Content-Length", str(len(body.encode()))),
                    *headers,
                ):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())
            except OSError:
                pass  # the client has hung up

        def log_message(self, format: str, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def chat_config(base_url: str, **changes: Any) -> ChatJudgeConfig:
    """The real conf/evaluation/judges/chat.yaml, quick and without a key."""
    values = OmegaConf.to_container(OmegaConf.load(CONF / "evaluation" / "judges" / "chat.yaml").chat)
    assert isinstance(values, dict)
    quick = {"base_url": base_url, "model": "judge-1", "api_key_env": None, "backoff_seconds": 0.01, "concurrency": 4}
    return ChatJudgeConfig.model_validate({**values, **quick, "timeout_seconds": 5.0, **changes})


def texts(request: dict[str, Any]) -> tuple[str, str]:
    """The responses that a request shows as A and B, in the shipped template."""
    shown = request["messages"][-1]["content"]
    first = shown.split("[Answer A]\n")[1].split("\n[End of answer A]")[0]
    return first, shown.split("[Answer B]\n")[1].split("\n[End of answer B]")[0]


def longer_wins(count: int, request: dict[str, Any]) -> Reply:
    """A consistent judge that likes long answers."""
    first, second = texts(request)
    return Reply(f"Because. [[{'C' if len(first) == len(second) else 'A' if len(first) > len(second) else 'B'}]]")
