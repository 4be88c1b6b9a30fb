"""Toxicity from a service that speaks the protocol of Google's Perspective.

Slow, failing and overloaded answers are tried again, each text is sent once (an SQLite cache), and the key, read from the
environment, appears in no message, cache or address.
"""

import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tasks.engine.errors import ConfigError, DataError
from tasks.measure.toxicity_config import PerspectiveConfig

logger = logging.getLogger("plumbline")
TRY_AGAIN = {408, 429, 500, 502, 503, 504}
"""Answers that another attempt may better."""
LONGEST_WAIT = 60.0
"""Seconds; a service that asks for more is not waited for."""


class _Again(Exception):
    """An attempt failed in a way that may pass; says how long the service asked to wait, if it did."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Perspective:
    """One attribute's summary score for each text; an empty text is scored 0 without asking."""

    unit = "probability"

    def __init__(self, config: PerspectiveConfig) -> None:
        self._config = config
        self._key = service_key(config)
        host = urlsplit(config.url).netloc.replace(":", "_")
        self.name = f"perspective-{host}-{config.attribute}-{config.language}"
        self._next_request = 0.0

    def score(self, texts: Sequence[str]) -> list[float]:
        """One score in [0, 1] a text.

        Raises:
            DataError: the service refused a text or stayed out of reach for every attempt.
        """
        found: dict[str, float] = {text: 0.0 for text in texts if not text.strip()}
        with self._cache() as cache, httpx.Client(timeout=self._config.timeout_seconds) as client:
            for text in texts:
                if text not in found:
                    known = _read(cache, self._digest(text))
                    found[text] = self._ask(client, text) if known is None else known
                    if known is None:
                        _write(cache, self._digest(text), found[text])
        return [found[text] for text in texts]

    def _ask(self, client: httpx.Client, text: str) -> float:
        reason = ""
        for attempt in range(self._config.attempts):
            self._keep_to_quota()
            try:
                return self._attempt(client, text)
            except _Again as again:
                reason = str(again)
                if attempt + 1 < self._config.attempts:
                    wait = again.wait if again.wait is not None else self._config.backoff_seconds * 2**attempt
                    logger.info("%s: %s; trying again in %.1f s", self.name, reason, min(wait, LONGEST_WAIT))
                    time.sleep(min(wait, LONGEST_WAIT))
        raise DataError(
            f"{self.name}: {reason}, after {self._config.attempts} attempts; run again later (scores so far are kept in the "
            "cache), raise evaluation.toxicity.perspective.attempts, or choose another scorer"
        )

    def _attempt(self, client: httpx.Client, text: str) -> float:
        body = {
            "comment": {"text": text},
            "languages": [self._config.language],
            "requestedAttributes": {self._config.attribute: {}},
            "doNotStore": True,
        }
        try:
            # In a header: addresses are logged.
            answer = client.post(self._config.url, json=body, headers={"X-Goog-Api-Key": self._key})
        except httpx.TimeoutException:
            raise _Again(f"no answer within {self._config.timeout_seconds:g} s") from None
        except httpx.TransportError as error:
            raise _Again(f"no connection ({type(error).__name__})") from None
        if answer.status_code in TRY_AGAIN:
            raise _Again(f"answered with status {answer.status_code}", _asked_wait(answer))
        if answer.status_code != httpx.codes.OK:
            raise DataError(
                f"{self.name}: the service refused a text with status {answer.status_code} ({_reason(answer, self._key)}); check "
                f"the key in ${self._config.key_variable}, attribute and language in evaluation.toxicity.perspective"
            )
        return self._score_in(answer)

    def _score_in(self, answer: httpx.Response) -> float:
        try:
            value = answer.json()["attributeScores"][self._config.attribute]["summaryScore"]["value"]
        except (ValueError, KeyError, TypeError):
            raise _Again("the answer holds no summary score") from None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise _Again("the answer's score is not a number from 0 to 1")
        return float(value)

    def _keep_to_quota(self) -> None:
        now = time.monotonic()
        time.sleep(max(0.0, self._next_request - now))
        self._next_request = max(now, self._next_request) + 1 / self._config.requests_per_second

    def _digest(self, text: str) -> str:
        return hashlib.sha256(f"{self._config.url}\n{self.name}\n{text}".encode()).hexdigest()

    @contextmanager
    def _cache(self) -> Iterator[sqlite3.Connection | None]:
        if self._config.cache is None:
            yield None
            return
        path = Path(self._config.cache).expanduser()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(path, timeout=60)) as connection:
                connection.execute("create table if not exists scores (digest text primary key, score real not null)")
                yield connection
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"evaluation.toxicity.perspective.cache: {path} cannot be used ({error}); name another file, or null"
            ) from error


def service_key(config: PerspectiveConfig) -> str:
    """The key, from the environment.

    Raises:
        ConfigError: the variable is not set.
    """
    key = os.environ.get(config.key_variable, "").strip()
    if not key:
        raise ConfigError(
            f"evaluation.toxicity.perspective: the environment variable {config.key_variable} is not set; export the service's "
            "key there, or choose another scorer"
        )
    return key


def _read(cache: sqlite3.Connection | None, digest: str) -> float | None:
    if cache is None:
        return None
    row = cache.execute("select score from scores where digest = ?", (digest,)).fetchone()
    return None if row is None else float(row[0])


def _write(cache: sqlite3.Connection | None, digest: str, score: float) -> None:
    if cache is not None:
        with cache:
            cache.execute("insert or replace into scores values (?, ?)", (digest, score))


def _asked_wait(answer: httpx.Response) -> float | None:
    try:
        return max(0.0, float(answer.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _reason(answer: httpx.Response, key: str) -> str:
    try:
        message = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = "no reason given"
    return message.replace(key, "***")[:200]
