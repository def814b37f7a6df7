"""Reading instruction and preference files of the field's formats into one form.

JSONL or JSON array, plain or .gz
  messages  {"messages": [{"role", "content"}, ...], "tools"?}            OpenAI
  Alpaca    {"instruction", "input"?, "output", "system"?, "history"?}
  ShareGPT  {"conversations": [{"from", "value"}, ...], "tools"?}
  pairs     {"prompt", "chosen", "rejected"}, texts or messages           TRL
  pairs     {"conversations", "chosen": {"value"}, "rejected": {"value"}} LLaMA-Factory
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen_core.data.messages import BadRecordError, Messages, read_content, read_messages, read_tools
from qwen_core.errors import InputError

__all__ = ["BadRecordError", "Conversation", "Messages", "Pair", "read_records", "to_conversation", "to_pair"]


@dataclass(frozen=True)
class Conversation:
    """Messages ending with the assistant's, what is known of them, and the functions that it may call."""

    messages: Messages
    language: str
    task: str
    tools: list[dict[str, Any]] = field(default_factory=list)


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
        BadRecordError: `unknown_format`, `no_assistant_turn`, `empty_reply`, `nothing_to_learn`, and the reasons of
            `read_messages` and `read_tools`.
    """
    if "messages" in record or "conversations" in record:
        messages = read_messages(record.get("messages", record.get("conversations")))
    elif "instruction" in record and "output" in record:
        parts = (read_content(record["instruction"]), read_content(record.get("input")))
        messages = _history(record.get("history")) + _turn("\n".join(part for part in parts if part), record["output"])
    elif "question" in record and "answer" in record:
        messages = _turn(record["question"], record["answer"])
    else:
        raise BadRecordError("unknown_format")
    system = read_content(record.get("system"))
    if system and messages and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if not messages:
        raise BadRecordError("no_assistant_turn")
    turns = [message for message in messages if message["role"] == "assistant"]
    if not all(turn["content"] or turn.get("tool_calls") for turn in turns):
        raise BadRecordError("empty_reply")
    if not any(turn.get("train", True) for turn in turns):
        raise BadRecordError("nothing_to_learn")
    task = str(record.get("task") or "other")
    return Conversation(messages, _language(record, messages), task, read_tools(record.get("tools")))


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
        prompt = read_messages(record["conversations"])
    elif isinstance(record.get("prompt"), str):
        prompt = [{"role": "user", "content": record["prompt"].strip()}]
    else:
        prompt = read_messages(record.get("prompt"))
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


def _turn(asked: Any, answered: Any) -> Messages:
    return [
        {"role": "user", "content": read_content(asked)},
        {"role": "assistant", "content": read_content(answered)},
    ]


def _history(value: Any) -> Messages:
    """Read earlier turns of an Alpaca record, pairs of question and answer."""
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        return []
    return [message for pair in value for message in _turn(*pair)]


def _reply(value: Any) -> str:
    """Read one reply: a text, a message, or a list that ends with one."""
    if isinstance(value, list):
        value = value[-1] if value else ""
    if isinstance(value, dict):
        value = value.get("content", value.get("value"))
    return read_content(value)


def _language(record: Mapping[str, Any], messages: Messages) -> str:
    """Take the record's language, or tell Chinese from the rest by its characters."""
    if record.get("language"):
        return str(record["language"])
    text = "".join(message["content"] for message in messages)
    han = sum("\u4e00" <= character <= "\u9fff" for character in text)
    return "zh" if han > 0.2 * max(1, len(text)) else "en"
