"""Answers of a chat model, kept on disk under what was asked: the same question is paid for once."""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class Answer(BaseModel):
    """What the model said, and what it took."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    prompt_tokens: int
    completion_tokens: int
    malformed: int
    """Answers that could not be used and came before this one."""


class AnswerCache:
    """One small file an answer, named by the digest of the request; several threads and processes may share it.

    A file appears whole or not at all. One that is damaged, or that belongs to another request, counts as absent.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, request: Mapping[str, Any]) -> Answer | None:
        """The answer to this very request."""
        try:
            kept = json.loads(self._path(request).read_text(encoding="utf-8"))
            return Answer.model_validate(kept["answer"]) if kept["request"] == dict(request) else None
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            return None

    def keep(self, request: Mapping[str, Any], answer: Answer) -> None:
        """Write an answer; the last of several writers stays."""
        path = self._path(request)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
        text = json.dumps({"request": dict(request), "answer": answer.model_dump()}, indent=1, ensure_ascii=False)
        try:
            draft.write_text(text, encoding="utf-8")
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)

    def _path(self, request: Mapping[str, Any]) -> Path:
        text = json.dumps(request, sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return self._folder / digest[:2] / f"{digest}.json"
