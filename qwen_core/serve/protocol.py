"""Requests and answers in the shape of OpenAI's API, as far as a model that only writes text can serve them."""

from __future__ import annotations

import time
import uuid
from typing import Any, Literal

from pydantic import BaseModel, Field

from qwen_core.model import Sampling


class Part(BaseModel):
    """A part of a message's content; only texts can be read."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]

    def plain(self) -> dict[str, str]:
        """Give the turn as role and text; `developer` is OpenAI's newer word for `system`."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class Asked(BaseModel):
    """What both kinds of request have in common; fields of OpenAI's that do nothing here are passed over."""

    model: str | None = None
    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(0.8, gt=0, le=1)
    top_k: int = Field(20, ge=0)
    repetition_penalty: float = Field(1.0, ge=1)
    seed: int | None = Field(None, ge=0)
    max_tokens: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    stream: bool = False
    n: Literal[1] = 1

    def sampling(self) -> Sampling:
        """Say how tokens are chosen; without a seed each answer is drawn anew."""
        seed = self.seed if self.seed is not None else uuid.uuid4().int % 2**31
        return Sampling(self.temperature, self.top_k, self.top_p, self.repetition_penalty, seed)

    def stops(self) -> list[str]:
        """List the texts that end an answer."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in given if text]


class ChatAsked(Asked):
    """`POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)


class TextAsked(Asked):
    """`POST /v1/completions`."""

    prompt: str = Field(min_length=1)


class Shape:
    """Writes the answers to one request."""

    def __init__(self, is_chat: bool, model: str) -> None:
        """Name the answer.

        Args:
            is_chat: Of a chat, or of a plain text.
            model: The served name.
        """
        self._is_chat = is_chat
        kind = "chat.completion" if is_chat else "text_completion"
        self._head = {
            "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, reason: str, prompt_tokens: int, tokens: int) -> dict[str, Any]:
        """Write a complete answer."""
        body = {"message": {"role": "assistant", "content": text}} if self._is_chat else {"text": text}
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": prompt_tokens + tokens,
        }
        choice = {"index": 0, **body, "finish_reason": reason, "logprobs": None}
        return self._head | {"choices": [choice], "usage": usage}

    def piece(self, text: str | None, reason: str | None = None) -> dict[str, Any]:
        """Write a piece of a streamed answer; without text the closing one."""
        if self._is_chat:
            body: dict[str, Any] = {"delta": {} if text is None else {"role": "assistant", "content": text}}
        else:
            body = {"text": text or ""}
        head = self._head | ({"object": "chat.completion.chunk"} if self._is_chat else {})
        return head | {"choices": [{"index": 0, **body, "finish_reason": reason, "logprobs": None}]}
