"""The server's pages.

    POST /v1/chat/completions   POST /v1/completions   GET /v1/models   GET /health

A lock lets one request compute at a time: a model is tried here; for production vLLM opens the same folder.
"""

from __future__ import annotations

import hmac
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from qwen_core.chat import ChatModel, Continuation
from qwen_core.errors import InputError
from qwen_core.serve.protocol import Asked, ChatAsked, Shape, TextAsked

_DEFAULT_NEW_TOKENS = 256


class RefusedError(Exception):
    """A request that gets an error in OpenAI's shape."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def make_app(chat: ChatModel, name: str, api_key: str | None = None, hosts: tuple[str, ...] = ("*",)) -> FastAPI:
    """Build the application.

    Args:
        chat: The model.
        name: Under which it is listed.
        api_key: Asked for as a bearer token where it is given.
        hosts: Names under which the server may be addressed: a page in a browser cannot reach it under another one.

    Returns:
        An ASGI application.
    """
    app = FastAPI(title="qwen-core serve", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    lock, started = threading.Lock(), int(time.time())

    def is_allowed(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if api_key is not None and not hmac.compare_digest(given.encode(), api_key.encode()):
            raise RefusedError(
                401, "the API key is missing or wrong: send it as 'Authorization: Bearer KEY'", "invalid_api_key"
            )

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models", dependencies=[Depends(is_allowed)])
    def models() -> dict[str, Any]:
        listed = {"id": name, "object": "model", "created": started, "owned_by": "qwen-core"}
        return {"object": "list", "data": [listed]}

    @app.post("/v1/chat/completions", dependencies=[Depends(is_allowed)])
    def chat_completions(asked: ChatAsked) -> Any:
        ids = chat.prompt([message.plain() for message in asked.messages])
        return answer(asked, ids, asked.max_completion_tokens or asked.max_tokens, Shape(True, name))

    @app.post("/v1/completions", dependencies=[Depends(is_allowed)])
    def completions(asked: TextAsked) -> Any:
        ids = chat.tokenizer.encode_batch([asked.prompt])[0]
        return answer(asked, ids, asked.max_tokens, Shape(False, name))

    def answer(asked: Asked, ids: list[int], max_tokens: int | None, shape: Shape) -> Any:
        room = chat.model.config.max_position_embeddings - len(ids)
        wanted = max_tokens or max(1, min(_DEFAULT_NEW_TOKENS, room))
        continuation = chat.pieces(ids, wanted, asked.sampling())
        pieces = _until(continuation, asked.stops())
        if asked.stream:
            return StreamingResponse(_events(lock, pieces, continuation, shape), media_type="text/event-stream")
        with lock:
            text = "".join(pieces)
        return shape.whole(text, _reason(continuation), len(ids), continuation.num_tokens)

    _answer_errors(app)
    return app


def _events(lock: threading.Lock, pieces: Iterator[str], continuation: Continuation, shape: Shape) -> Iterator[str]:
    """Write server-sent events; a client that goes away ends the generation with its next piece."""
    with lock:
        for piece in pieces:
            yield f"data: {json.dumps(shape.piece(piece), ensure_ascii=False)}\n\n"
    yield f"data: {json.dumps(shape.piece(None, _reason(continuation)))}\n\n"
    yield "data: [DONE]\n\n"


def _until(pieces: Continuation, stops: list[str]) -> Iterator[str]:
    """Cut a text before the first of some texts; what could be the begin of one is held back."""
    held = ""
    longest = max(map(len, stops), default=0)
    for piece in pieces:
        held += piece
        found = [place for place in (held.find(stop) for stop in stops) if place >= 0]
        if found:
            yield held[: min(found)]
            return
        safe = len(held) - (longest - 1) if longest else len(held)
        if safe > 0:
            yield held[:safe]
            held = held[safe:]
    if held:
        yield held


def _reason(continuation: Continuation) -> str:
    """Say why an answer ended."""
    return (
        "length" if continuation.num_tokens >= continuation.max_new_tokens and not continuation.is_stopped else "stop"
    )


def _answer_errors(app: FastAPI) -> None:
    """Give every fault in the shape that OpenAI's clients read."""

    def shaped(status: int, message: str, code: str) -> JSONResponse:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        return JSONResponse({"error": error}, status_code=status)

    @app.exception_handler(RefusedError)
    def refused(_: Request, error: RefusedError) -> JSONResponse:
        return shaped(error.status, str(error), error.code)

    @app.exception_handler(InputError)
    def too_long(_: Request, error: InputError) -> JSONResponse:
        return shaped(400, str(error), "context_length_exceeded")

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        told = "; ".join(f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors())
        return shaped(400, told, "invalid_value")
