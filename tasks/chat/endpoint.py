"""One OpenAI-compatible chat endpoint: patient with a server that is busy, quick to report one that refuses.

The API key is read from the environment when it is needed, and appears in no message, file or log of ours.
"""

import json
import os
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from tasks.chat.config import ChatModelConfig
from tasks.engine.errors import ConfigError, JudgeError

Messages = list[dict[str, str]]

_PREFLIGHT_SECONDS = 10.0
_LONGEST_RETRY_AFTER = 300.0
_QUOTED = 160


class Completion(NamedTuple):
    """One answer of the model."""

    text: str
    prompt_tokens: int
    completion_tokens: int


class TryAgain(Exception):
    """The request failed in a way that may pass: no connection, a timeout, a busy or stumbling server."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.retry_after = reason, retry_after


class Refused(Exception):
    """The server will never answer this request, such as one that is too long; others may go well."""


class Endpoint:
    """Sends single requests; how often to try is the caller's business.

    Args:
        config: where, and whom.
        knob: where it is configured, for messages.
        without: how to do without it, for messages.

    Raises:
        ConfigError: the package ``openai`` is not installed, or the variable of the API key is not set.
    """

    def __init__(self, config: ChatModelConfig, knob: str, without: str) -> None:
        self._config, self._knob, self._without = config, knob, without
        self._key = api_key(config, knob)
        try:
            import openai
        except ImportError as error:
            raise ConfigError(
                f"{knob}: the package openai is not installed; run `pip install -c constraints.txt -e .[judge]` or {without}"
            ) from error
        self._openai = openai
        self._client = openai.OpenAI(
            base_url=config.base_url,
            api_key=self._key or "none",
            timeout=config.timeout_seconds,
            max_retries=0,
        )

    def request(self, messages: Messages) -> dict[str, Any]:
        """What is sent, without the key."""
        sent: dict[str, Any] = {
            "model": self._config.model,
            "messages": messages,
            "max_tokens": self._config.max_tokens,
        }
        return sent if self._config.temperature is None else {**sent, "temperature": self._config.temperature}

    def send(self, messages: Messages) -> Completion:
        """Ask once.

        Raises:
            TryAgain: no connection, timeout, HTTP 408, 409, 429 or 5xx, or a reply that is no chat completion.
            Refused: any other 4xx that concerns this request alone.
            JudgeError: the key or the model's name is refused.
        """
        openai = self._openai
        try:
            reply = self._client.chat.completions.with_raw_response.create(**self.request(messages))
        except openai.APITimeoutError as error:
            raise TryAgain("timeout") from error
        except openai.APIConnectionError as error:
            raise TryAgain("no connection") from error
        except openai.APIStatusError as error:
            raise self._failure(error) from error
        return _completion(reply.text)

    def check(self) -> None:
        """Whether somebody answers at the address and takes the key; costs no tokens.

        Raises:
            JudgeError: nobody answers, or the key is refused.
        """
        where, openai = self._config.base_url, self._openai
        try:
            self._client.with_options(timeout=min(_PREFLIGHT_SECONDS, self._config.timeout_seconds)).models.list()
        except openai.APIConnectionError as error:
            raise JudgeError(
                f"{self._knob}.base_url: {where} does not answer ({type(error).__name__}); start the server, "
                f"correct the address, or {self._without}"
            ) from None
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise self._failure(error) from None
            if error.status_code >= 500:
                raise JudgeError(
                    f"{self._knob}.base_url: {where} answers HTTP {error.status_code} to GET /models; wait until the "
                    f"server is up, or {self._without}"
                ) from None
            # Some servers have no list of models: that one answered at all is what was asked.
        except (openai.OpenAIError, ValueError):
            pass  # a list of models that cannot be read, by a server that answers

    def _failure(self, error: Any) -> Exception:
        status, said = int(error.status_code), self._quote(error.response)
        if status in (408, 409, 429) or status >= 500:
            return TryAgain(f"HTTP {status}", _retry_after(error.response.headers))
        if status in (401, 403):
            variable = self._config.api_key_env
            return JudgeError(
                f"{self._knob}: {self._config.base_url} refuses the API key (HTTP {status}); "
                + (f"the key in {variable} is wrong" if variable else "api_key_env is null, and the server wants a key")
            )
        if status == 404:
            return JudgeError(
                f"{self._knob}: {self._config.base_url} knows no chat completions of model "
                f"{self._config.model!r} (HTTP 404: {said}); check base_url (it often ends in /v1) and model"
            )
        return Refused(f"HTTP {status}")

    def _quote(self, response: Any) -> str:
        said = " ".join(str(response.text).split())[:_QUOTED]
        return said.replace(self._key, "***") if self._key else said


class Patience:
    """Waits between attempts, unless somebody calls the whole thing off."""

    def __init__(self, backoff_seconds: float) -> None:
        self._backoff, self.called_off = backoff_seconds, threading.Event()

    def wait(self, attempt: int, retry_after: float | None) -> None:
        """Sleep before attempt ``attempt + 1``: as long as the server asked for, else doubling."""
        self.called_off.wait(self._backoff * 2**attempt if retry_after is None else retry_after)


def api_key(config: ChatModelConfig, knob: str) -> str:
    """The key, or an empty text when the endpoint asks for none.

    Raises:
        ConfigError: the variable is not set.
    """
    if config.api_key_env is None:
        return ""
    key = os.environ.get(config.api_key_env, "")
    if not key:
        raise ConfigError(
            f"{knob}.api_key_env: the environment variable {config.api_key_env} is not set; export your "
            "API key in it, or set api_key_env=null for a server without keys"
        )
    return key


def _completion(body: str) -> Completion:
    try:
        reply = json.loads(body)
        text = reply["choices"][0]["message"]["content"]
        usage = reply.get("usage") or {}
        tokens = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise TryAgain("not a chat completion") from error
    if not isinstance(text, str):
        raise TryAgain("not a chat completion")
    return Completion(text, *tokens)


def _retry_after(headers: Any) -> float | None:
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None  # absent, or a date: the usual backoff then
    return min(seconds, _LONGEST_RETRY_AFTER) if seconds >= 0 else None


def messages_of(system: str, user: str) -> Messages:
    """A conversation of one question."""
    opening: Sequence[dict[str, str]] = [{"role": "system", "content": system}] if system else []
    return [*opening, {"role": "user", "content": user}]
