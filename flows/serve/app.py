"""The addresses that a client of OpenAI's protocol asks; what is not read here is refused, and nothing is ignored."""

import asyncio
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from flows.serve.respondent import Respondent
from tasks.engine.errors import DataError, ModelError, PlumblineError
from tasks.language.chat_layout import Role, Turn
from tasks.language.conversation import HIGHEST, LOWEST


class ChatMessage(BaseModel):
    """One turn."""

    model_config = ConfigDict(extra="forbid")

    role: Role
    content: str

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, content: Any) -> Any:
        """Parts, as many clients write a text, follow each other with nothing between them."""
        if not isinstance(content, list):
            return content
        for part in content:
            written = isinstance(part, dict) and part.keys() == {"type", "text"} and part["type"] == "text"
            if not written or not isinstance(part["text"], str):
                raise ValueError(
                    f"found the part {str(part)[:80]}, expected {{type: text, text: ...}}; nothing else is read"
                )
        return "".join(part["text"] for part in content)

    @field_validator("content")
    @classmethod
    def _is_text(cls, content: str) -> str:
        if any("\ud800" <= sign <= "\udfff" for sign in content):  # JSON can escape it, no tokenizer reads it
            raise ValueError("found half of a surrogate pair, expected text that UTF-8 can hold")
        return content


class ChatRequest(BaseModel):
    """The part of the protocol that is read, with its defaults."""

    model_config = ConfigDict(extra="forbid")

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=HIGHEST, allow_inf_nan=False)
    n: Literal[1] = 1
    stream: Literal[False] = False

    @field_validator("temperature")
    @classmethod
    def _drawable(cls, temperature: float) -> float:
        if 0 < temperature < LOWEST:
            raise ValueError(f"found {temperature}, expected 0 or at least {LOWEST}")
        return temperature


def create_server(respondent: Respondent) -> FastAPI:
    """``/v1/models`` and ``/v1/chat/completions``, for programs on this machine."""
    app = FastAPI(title="Plumbline chat completions", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> JSONResponse:
        return complaint(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    def unreadable(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return complaint(400, f"body: found no JSON at character {first['loc'][-1]} ({first['ctx']['error']})")
        return complaint(400, f"{'.'.join(str(part) for part in first['loc'][1:]) or 'body'}: {first['msg']}")

    @app.exception_handler(PlumblineError)
    def wrong(request: Request, error: PlumblineError) -> JSONResponse:
        return complaint(400 if isinstance(error, DataError) else 500, str(error))

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": respondent.name, "object": "model", "owned_by": "plumbline"}]}

    @app.post("/v1/chat/completions", response_model=None)
    async def complete(request: ChatRequest) -> dict[str, Any] | JSONResponse:
        try:
            return await run_in_threadpool(completion, request)
        except asyncio.CancelledError:  # Ctrl-C, and the grace is over: no reason for a traceback
            return complaint(503, "the server was ended before the answer was whole")

    def completion(request: ChatRequest) -> dict[str, Any]:
        if request.model != respondent.name:
            raise HTTPException(
                404, f"model: found {request.model!r}, expected {respondent.name!r}, which is served here"
            )
        turns = [Turn(message.role, message.content) for message in request.messages]
        try:
            asked = respondent.asked(turns, request.max_completion_tokens or request.max_tokens, request.temperature)
        except ModelError as error:  # of the template, about this conversation
            raise HTTPException(400, str(error)) from None
        answered = respondent.answer(asked)
        usage = {"prompt_tokens": len(asked.prompt), "completion_tokens": answered.tokens}
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answered.text},
            "finish_reason": "stop" if answered.ended else "length",
        }
        return {
            "id": "chatcmpl-plumbline",
            "object": "chat.completion",
            "created": 0,
            "model": respondent.name,
            "choices": [choice],
            "usage": {**usage, "total_tokens": sum(usage.values())},
        }

    return app


def complaint(status: int, sentence: str) -> JSONResponse:
    """An error as clients of the protocol read it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": sentence, "type": kind, "param": None, "code": None}}, status)
