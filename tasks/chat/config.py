"""Which chat model is asked, and how patiently."""

from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from tasks.engine.config import Config


class ChatModelConfig(Config):
    """A chat model behind an OpenAI-compatible endpoint. Answers are kept on disk; equal questions are asked once."""

    base_url: str
    """Root of the API, such as http://127.0.0.1:8000/v1; no user name, password or query in it."""
    model: str
    """Name of the model at the endpoint."""
    api_key_env: str | None
    """NAME of the environment variable that holds the API key; null for a server that asks for none."""
    temperature: float | None = Field(ge=0)
    """Sampling temperature; null leaves it out of the request, for models that accept none."""
    max_tokens: int = Field(gt=0)
    """Longest answer of the model."""
    concurrency: int = Field(gt=0)
    """Requests under way at the same time."""
    timeout_seconds: float = Field(gt=0)
    """One request, from connecting to the last byte."""
    retries: int = Field(ge=0)
    """Further attempts after a failed request or an answer that cannot be used."""
    backoff_seconds: float = Field(gt=0)
    """Wait before the first further attempt; doubles each time. A server's Retry-After is obeyed instead."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """How fast and how patiently it is asked does not change what it answers."""
        patience = ("concurrency", "timeout_seconds", "retries", "backoff_seconds", "api_key_env")
        return {name: value for name, value in super().fingerprint_fields().items() if name not in patience}

    @model_validator(mode="after")
    def _has_an_address(self) -> "ChatModelConfig":
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"base_url is {self.base_url!r}; expected http(s)://host[:port]/v1")
        if url.username or url.password or url.query or url.fragment:
            raise ValueError(
                "base_url holds a user name, a password or a query; a secret belongs into the environment variable that "
                "api_key_env names"
            )
        return self
