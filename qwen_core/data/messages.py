"""Messages of a conversation in one form, whatever they were called in the file that they come from.

    OpenAI    {"role", "content": text or parts, "tool_calls"?, "weight"?}
    ShareGPT  {"from": human | gpt | function_call | observation | system, "value"}
      ─▶ {"role": system | user | assistant | tool, "content": text, "tool_calls"?: [...], "train"?: False}

A call is `{"type": "function", "function": {"name", "arguments": mapping}}`, as chat templates expect it. `train` is
there, and false, only where a message of the assistant is not to be learnt from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "system": "system",
    "developer": "system",
    "observation": "tool",
    "tool": "tool",
    "function": "tool",
}
_CALLS = ("function_call", "tool_call")
_WEIGHTS = ("train", "weight", "loss_weight")

Message = dict[str, Any]
Messages = list[Message]


class BadRecordError(Exception):
    """A record that cannot be used; the text is the reason's word."""


def read_messages(value: Any) -> Messages:
    """Read messages in either naming; content is stripped, so that a turn begins with its first word.

    Args:
        value: What stands under `messages` or `conversations`.

    Returns:
        The messages; calls that follow one another are one message.

    Raises:
        BadRecordError: `unknown_format`, `unsupported_role`, `unsupported_content`, `unsupported_weight`,
            `broken_tool_call`.
    """
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise BadRecordError("unknown_format")
    messages: Messages = []
    for given in value:
        message = _message(given)
        before = messages[-1] if messages else {}
        if "tool_calls" in message and "tool_calls" in before and not message["content"]:
            before["tool_calls"] += message["tool_calls"]
        else:
            messages.append(message)
    return messages


def read_tools(value: Any) -> list[dict[str, Any]]:
    """Read the functions that a conversation's assistant may call.

    Args:
        value: A list of JSON schemas, or the same as a JSON text; nothing, where there are none.

    Returns:
        The schemas as they stand.

    Raises:
        BadRecordError: `broken_tools`.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except json.JSONDecodeError:
            raise BadRecordError("broken_tools") from None
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise BadRecordError("broken_tools")
    return value


def read_content(value: Any) -> str:
    """Read a message's text: a text, or a list of parts of which all are texts.

    Args:
        value: What stands under `content` or `value`.

    Returns:
        The text without blanks around it; empty for anything that is no text.

    Raises:
        BadRecordError: `unsupported_content`: a part is a picture or the like.
    """
    if isinstance(value, list):
        parts = [part.get("text", part.get("value")) if isinstance(part, dict) else part for part in value]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) < len(parts):
            raise BadRecordError("unsupported_content")
        value = "".join(texts)
    return value.strip() if isinstance(value, str) else ""


def _message(given: Mapping[str, Any]) -> Message:
    """Read one message."""
    called = str(given.get("role", given.get("from")))
    role = _ROLES.get(called)
    if role is None:
        raise BadRecordError("unsupported_role")
    content = given.get("content", given.get("value"))
    message: Message = {"role": role, "content": ""}
    calls = given.get("tool_calls")
    if called in _CALLS:
        calls = _parsed(content)
        if not calls:
            raise BadRecordError("broken_tool_call")
    else:
        message["content"] = read_content(content)
    if calls and role == "assistant":
        message["tool_calls"] = [_call(call) for call in (calls if isinstance(calls, list) else [calls])]
    if role == "assistant" and not _is_learnt(given):
        message["train"] = False
    return message


def _call(given: Any) -> dict[str, Any]:
    """Bring one call into the form of chat templates."""
    inner = given.get("function", given) if isinstance(given, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise BadRecordError("broken_tool_call")
    arguments = inner.get("arguments", inner.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _parsed(arguments) if arguments.strip() else {}
    if not isinstance(arguments, dict):
        raise BadRecordError("broken_tool_call")
    return {"type": "function", "function": {"name": inner["name"], "arguments": arguments}}


def _parsed(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise BadRecordError("broken_tool_call") from None


def _is_learnt(given: Mapping[str, Any]) -> bool:
    """Read a message's own word on whether it is learnt from: `train`, or a weight of 0 or 1."""
    for name in _WEIGHTS:
        value = given.get(name)
        if value is not None:
            if value not in (0, 1):
                raise BadRecordError("unsupported_weight")
            return bool(value)
    return True
