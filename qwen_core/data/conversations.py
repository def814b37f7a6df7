"""Reading instruction and preference files of the field's formats into one form.

JSONL or JSON array, plain or .gz
  messages  {"messages": [{"role", "content"}, ...]}                      OpenAI
  Alpaca    {"instruction", "input"?, "output"}
  ShareGPT  {"conversations": [{"from", "value"}, ...]}
  pairs     {"prompt", "chosen", "rejected"}, texts or messages           TRL
  pairs     {"conversations", "chosen": {"value"}, "rejected": {"value"}} LLaMA-Factory
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_core.errors import InputError

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}

Messages = list[dict[str, str]]


class BadRecordError(Exception):
    """A record that cannot be used; the text is the reason's word."""


@dataclass(frozen=True)
class Conversation:
    """Messages ending with the assistant's, and what is known of them."""

    messages: Messages
    language: str
    task: str


@dataclass(frozen=True)
class Pair:
    """Messages ending with the user's, and two replies, the better one first."""

    prompt: Messages
    chosen: str
    rejected: str
    language: str


def read_records(path: Path, drops: Counter[str]) -> Iterator[dict[str, Any]]:
    """Read the records of a file; what is broken is counted, the rest goes on.

    Args:
        path: `.jsonl` or `.json`, both also `.gz`; a JSON file may hold an array or lines.
        drops: Gets the reasons `invalid_json` and `truncated_file`.

    Yields:
        One mapping for each record.

    Raises:
        InputError: The file is missing.
    """
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    text = _text(path, drops)
    if text.lstrip().startswith("["):
        try:
            lines: Iterator[Any] = iter(json.loads(text))
        except json.JSONDecodeError:
            drops["invalid_json"] += 1
            return
    else:
        lines = _parsed_lines(text, drops)
    for record in lines:
        if isinstance(record, dict):
            yield record
        else:
            drops["invalid_json"] += 1


def to_conversation(record: Mapping[str, Any]) -> Conversation:
    """Bring an instruction record of any known format into one form.

    Args:
        record: The record.

    Returns:
        The conversation.

    Raises:
        BadRecordError: `unknown_format`, `unsupported_role`, `no_assistant_turn`, `empty_reply`.
    """
    if "messages" in record or "conversations" in record:
        messages = _messages(record.get("messages", record.get("conversations")))
        system = record.get("system")
        if isinstance(system, str) and system.strip() and messages and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": system})
    elif "instruction" in record and "output" in record:
        asked = "\n".join(part for part in (record["instruction"], record.get("input") or "") if part)
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": _content(record["output"])}]
    elif "question" in record and "answer" in record:
        messages = [
            {"role": "user", "content": _content(record["question"])},
            {"role": "assistant", "content": _content(record["answer"])},
        ]
    else:
        raise BadRecordError("unknown_format")
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if not messages:
        raise BadRecordError("no_assistant_turn")
    if any(message["role"] == "assistant" and not message["content"] for message in messages):
        raise BadRecordError("empty_reply")
    return Conversation(messages, _language(record, messages), str(record.get("task") or "other"))


def to_pair(record: Mapping[str, Any]) -> Pair:
    """Bring a preference record of any known format into one form.

    Args:
        record: The record.

    Returns:
        The pair.

    Raises:
        BadRecordError: `unknown_format`, `unsupported_role`, `empty_prompt`, `empty_reply`, `same_replies`.
    """
    if "chosen" not in record or "rejected" not in record:
        raise BadRecordError("unknown_format")
    if "conversations" in record:
        prompt = _messages(record["conversations"])
    elif isinstance(record.get("prompt"), str):
        prompt = [{"role": "user", "content": record["prompt"].strip()}]
    else:
        prompt = _messages(record.get("prompt"))
    if not prompt or prompt[-1]["role"] != "user" or not prompt[-1]["content"]:
        raise BadRecordError("empty_prompt")
    chosen, rejected = _reply(record["chosen"]), _reply(record["rejected"])
    if not chosen or not rejected:
        raise BadRecordError("empty_reply")
    if chosen == rejected:
        raise BadRecordError("same_replies")
    return Pair(prompt, chosen, rejected, _language(record, prompt))


def _text(path: Path, drops: Counter[str]) -> str:
    """Read a text file; of a truncated gzip, what can be read."""
    raw = path.read_bytes()
    if path.suffix == ".gz":
        inflate = zlib.decompressobj(wbits=31)
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error):
            drops["truncated_file"] += 1
            try:
                raw = inflate.decompress(raw)
            except zlib.error:
                raw = b""
    return raw.decode("utf-8-sig", errors="replace")


def _parsed_lines(text: str, drops: Counter[str]) -> Iterator[Any]:
    for line in text.split("\n"):  # not splitlines: JSON texts may hold other line separators
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                drops["invalid_json"] += 1


def _messages(value: Any) -> Messages:
    """Read messages in either naming; content is stripped, so that a turn begins with its first word."""
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise BadRecordError("unknown_format")
    messages = []
    for message in value:
        role = _ROLES.get(str(message.get("role", message.get("from"))))
        if role is None:
            raise BadRecordError("unsupported_role")
        messages.append({"role": role, "content": _content(message.get("content", message.get("value")))})
    return messages


def _reply(value: Any) -> str:
    """Read one reply: a text, a message, or a list that ends with one."""
    if isinstance(value, list):
        value = value[-1] if value else ""
    if isinstance(value, dict):
        value = value.get("content", value.get("value"))
    return _content(value)


def _content(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _language(record: Mapping[str, Any], messages: Messages) -> str:
    """Take the record's language, or tell Chinese from the rest by its characters."""
    if record.get("language"):
        return str(record["language"])
    text = "".join(message["content"] for message in messages)
    han = sum("\u4e00" <= character <= "\u9fff" for character in text)
    return "zh" if han > 0.2 * max(1, len(text)) else "en"
