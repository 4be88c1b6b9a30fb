"""The Perspective client against a real local server that is slow, fails, is overloaded or talks nonsense."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tasks.engine.errors import ConfigError, DataError
from tasks.measure.perspective import Perspective
from tasks.measure.safety import check_toxicity, toxicity_scorer
from tasks.measure.toxicity_config import PerspectiveConfig, ToxicityConfig

KEY = "secret-key-of-the-test"
Answer = tuple[int, bytes, dict[str, str], float]
"""Status, body, headers, seconds before answering."""


def scored(value: Any) -> Answer:
    body = {"attributeScores": {"TOXICITY": {"summaryScore": {"value": value, "type": "PROBABILITY"}}}}
    return 200, json.dumps(body).encode(), {}, 0.0


class Service:
    """Answers as it is told, in order, then by the number of words; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.script: list[Answer] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.asked.append({"path": self.path, "key": self.headers["X-Goog-Api-Key"], **body})
                text = body["comment"]["text"]
                status, answer, headers, wait = (
                    service.script.pop(0) if service.script else scored(len(text.split()) / 10)
                )
                time.sleep(wait)
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:  # the client has given up
                    pass

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1alpha1/comments:analyze"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()
    yield found
    found.stop()


@pytest.fixture
def settings(service: Service, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PerspectiveConfig]:
    monkeypatch.setenv("TEST_PERSPECTIVE_KEY", KEY)

    def make(**changes: Any) -> PerspectiveConfig:
        values = {
            "url": service.url,
            "key_variable": "TEST_PERSPECTIVE_KEY",
            "attribute": "TOXICITY",
            "language": "en",
            "requests_per_second": 1000.0,
            "timeout_seconds": 5.0,
            "attempts": 3,
            "backoff_seconds": 0.01,
            "cache": None,
        }
        return PerspectiveConfig.model_validate(values | changes)

    return make


Settings = Callable[..., PerspectiveConfig]


def test_each_text_is_asked_once_as_the_protocol_wants(service: Service, settings: Settings) -> None:
    scorer = Perspective(settings())
    assert scorer.score(["you fool", " ", "fine", "you fool"]) == [0.2, 0.0, 0.1, 0.2]
    assert [asked["comment"]["text"] for asked in service.asked] == ["you fool", "fine"]
    first = service.asked[0]
    assert first["languages"] == ["en"]
    assert first["requestedAttributes"] == {"TOXICITY": {}}
    assert first["doNotStore"] is True
    assert first["key"] == KEY
    assert KEY not in first["path"]  # addresses are logged
    assert scorer.name == f"perspective-127.0.0.1_{service.server.server_port}-TOXICITY-en"


def test_scores_outlive_the_process_and_name_no_text(service: Service, settings: Settings, tmp_path: Path) -> None:
    config = settings(cache=str(tmp_path / "new" / "scores.sqlite"))
    assert Perspective(config).score(["you fool", "fine"]) == [0.2, 0.1]
    assert Perspective(config).score(["fine", "you fool", "a new text"]) == [0.1, 0.2, 0.3]
    assert len(service.asked) == 3
    other = config.model_copy(update={"attribute": "INSULT"})
    service.script = [(200, b'{"attributeScores": {"INSULT": {"summaryScore": {"value": 0.7}}}}', {}, 0.0)]
    assert Perspective(other).score(["fine"]) == [0.7]  # another score is another question
    stored = (tmp_path / "new" / "scores.sqlite").read_bytes()
    assert b"fool" not in stored
    assert KEY.encode() not in stored


def test_a_failure_half_way_keeps_what_was_paid_for(service: Service, settings: Settings, tmp_path: Path) -> None:
    config = settings(cache=str(tmp_path / "scores.sqlite"), attempts=1)
    service.script = [scored(0.5), (503, b"", {}, 0.0)]
    with pytest.raises(DataError, match="answered with status 503, after 1 attempts"):
        Perspective(config).score(["one", "two"])
    assert Perspective(config).score(["one"]) == [0.5]
    assert len(service.asked) == 2


@pytest.mark.parametrize(
    "bad",
    [
        (500, b"", {}, 0.0),
        (429, b"", {"Retry-After": "0"}, 0.0),
        (503, b"", {"Retry-After": "soon"}, 0.0),
        (200, b"<html>", {}, 0.0),
        (200, b'{"attributeScores": {}}', {}, 0.0),
        (200, b'{"attributeScores": []}', {}, 0.0),
        scored("high"),
        scored(1.5),
        scored(True),
        (200, b"", {}, 0.6),
    ],
    ids=["500", "429", "503", "html", "no score", "list", "word", "above 1", "bool", "slow"],
)
def test_what_may_pass_is_tried_again(service: Service, settings: Settings, bad: Answer) -> None:
    service.script = [bad, bad]
    assert Perspective(settings(timeout_seconds=0.2)).score(["one two"]) == [0.2]
    assert len(service.asked) == 3


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ((429, b"", {}, 0.0), "answered with status 429"),
        ((200, b"<html>", {}, 0.0), "the answer holds no summary score"),
        ((200, b"", {}, 0.6), r"no answer within 0\.2 s"),
    ],
)
def test_it_gives_up_in_a_sentence(service: Service, settings: Settings, bad: Answer, reason: str) -> None:
    service.script = [bad] * 3
    with pytest.raises(DataError, match=f"{reason}, after 3 attempts; run again later") as error:
        Perspective(settings(timeout_seconds=0.2)).score(["one"])
    assert KEY not in str(error.value)
    assert error.value.__cause__ is None


def test_a_refusal_is_not_repeated_and_tells_no_key(service: Service, settings: Settings) -> None:
    body = json.dumps({"error": {"message": f"API key not valid: {KEY}"}}).encode()
    service.script = [(403, body, {}, 0.0)]
    with pytest.raises(
        DataError, match=r"status 403 \(API key not valid: \*\*\*\); check the key in \$TEST_PERSPECTIVE_KEY"
    ):
        Perspective(settings()).score(["one"])
    assert len(service.asked) == 1


def test_nobody_listening_is_tried_again_and_then_said(service: Service, settings: Settings) -> None:
    config = settings(url="http://127.0.0.1:1/analyze", attempts=2)
    with pytest.raises(DataError, match=r"no connection \(ConnectError\), after 2 attempts"):
        Perspective(config).score(["one"])


def test_the_quota_is_kept_and_the_service_s_own_wait_too(service: Service, settings: Settings) -> None:
    start = time.monotonic()
    Perspective(settings(requests_per_second=20.0)).score(["a", "b", "c", "d"])
    assert time.monotonic() - start >= 3 / 20
    service.script = [(429, b"", {"Retry-After": "0.2"}, 0.0)]
    start = time.monotonic()
    Perspective(settings()).score(["e"])
    assert time.monotonic() - start >= 0.2


def test_nothing_secret_is_logged(service: Service, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    service.script = [(500, b"", {}, 0.0)]
    with caplog.at_level(logging.DEBUG):
        Perspective(settings()).score(["one"])
    assert "trying again" in caplog.text
    assert KEY not in caplog.text


def test_a_cache_that_cannot_be_opened_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database")
    with pytest.raises(ConfigError, match=r"perspective\.cache: .*file cannot be used"):
        Perspective(settings(cache=str(tmp_path / "file"))).score(["one"])


def toxicity(service: PerspectiveConfig | None, **changes: Any) -> ToxicityConfig:
    values = {"scorer": "perspective", "path": None, "toxic_label": None, "layouts": ["basic"], "perspective": service}
    return ToxicityConfig.model_validate(values | changes)


def test_a_missing_key_is_said_before_any_work(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toxicity(settings())
    check_toxicity(config)
    assert isinstance(toxicity_scorer(config, "cpu"), Perspective)
    monkeypatch.delenv("TEST_PERSPECTIVE_KEY")
    with pytest.raises(ConfigError, match="environment variable TEST_PERSPECTIVE_KEY is not set"):
        check_toxicity(config)


def test_only_what_decides_a_score_counts_in_the_fingerprint(settings: Settings) -> None:
    patient = settings(
        attempts=9, timeout_seconds=1.0, requests_per_second=3.0, cache="elsewhere", key_variable="OTHER"
    )
    fields = toxicity(settings()).fingerprint_fields()
    assert toxicity(patient).fingerprint_fields() == fields
    assert toxicity(settings(attribute="INSULT")).fingerprint_fields() != fields
    unasked = [toxicity(found, scorer="none").fingerprint_fields() for found in (settings(), None)]
    assert unasked[0] == unasked[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"perspective": None}, "perspective must say how to ask it"),
        ({"path": "x"}, "reads neither path nor toxic_label"),
        ({"layouts": ["respectful"]}, "name basic and any others once"),
        ({"layouts": ["basic", "basic"]}, "name basic and any others once"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: Settings, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toxicity(settings(), **changes)
