"""`instruct`: instruction files ─▶ tokens of conversations with a mask of what is learnt.

    record ─▶ conversation ─▶ chat template ─▶ text, spans of the assistant ─▶ ids, mask

Reads `tokenizer`. Leaves `train.arrow`, `validation.arrow`, `tokenizer/`.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from qwen_core.artifacts import Outcome
from qwen_core.data.conversations import BadRecordError, Conversation, to_conversation
from qwen_core.jobs.context import Context
from qwen_core.jobs.rendered import Record, Rows, chat_tokenizer, render_files, tried
from qwen_core.jobs.sources import instruction_paths
from qwen_core.tokenizer import ChatTokenizer, Encoded, Rendered, TemplateError, encode_rendered

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("input_ids", pa.list_(pa.uint32())),
        ("labels_mask", pa.list_(pa.bool_())),
        ("language", pa.string()),
        ("task", pa.string()),
    ]
)


def run(context: Context) -> Outcome:
    """Render all conversations.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome, with the reasons of what was dropped.

    Raises:
        InputError: Fewer than two records could be used, or the template does not fit the tokenizer.
    """
    tokenizer = chat_tokenizer(context)
    section = context.section

    def render(records: list[Record]) -> Rows:
        return render_conversations(records, tokenizer, section.max_seq_len, section.train_on)

    return render_files(context, instruction_paths(context.recipe), render, _SCHEMA)


def render_conversations(records: list[Record], tokenizer: ChatTokenizer, max_seq_len: int, train_on: str) -> Rows:
    """Render records of any known format.

    Args:
        records: As read.
        tokenizer: With its chat template.
        max_seq_len: Longer conversations are `too_long`.
        train_on: `all` of the assistant's turns, or the `last`; those that say so themselves are left out of both.

    Returns:
        For each record a row, or the reason why there is none.
    """
    found = [tried(_read, record, tokenizer) for record in records]
    usable = [each for each in found if not isinstance(each, BadRecordError)]
    learnt = [_learnt(conversation, rendered, train_on) for conversation, rendered in usable]
    encoded = iter(encode_rendered([rendered for _, rendered in usable], learnt, tokenizer))
    return [
        each if isinstance(each, BadRecordError) else tried(_row, each[0], next(encoded), max_seq_len) for each in found
    ]


def _row(conversation: Conversation, encoded: Encoded, max_seq_len: int) -> Record:
    ids, mask = encoded
    if len(ids) > max_seq_len:
        raise BadRecordError("too_long")
    if not mask.any():
        raise BadRecordError("nothing_to_learn")
    return {"input_ids": ids, "labels_mask": mask, "language": conversation.language, "task": conversation.task}


def _read(record: Record, tokenizer: ChatTokenizer) -> tuple[Conversation, Rendered]:
    conversation = to_conversation(record)
    try:
        rendered = tokenizer.template.render(conversation.messages, conversation.tools)
    except TemplateError as error:
        told = "no_tools_in_template" if conversation.tools or _has_calls(conversation) else "refused_by_template"
        raise BadRecordError(told) from error
    if len(rendered.spans) != len(_turns(conversation)):
        raise BadRecordError("refused_by_template")
    return conversation, rendered


def _learnt(conversation: Conversation, rendered: Rendered, train_on: str) -> list[tuple[int, int]]:
    """Choose the assistant's turns that are learnt from."""
    turns = _turns(conversation)
    chosen = turns if train_on == "all" else [{"train": False}] * (len(turns) - 1) + turns[-1:]
    return [span for turn, span in zip(chosen, rendered.spans, strict=True) if turn.get("train", True)]


def _turns(conversation: Conversation) -> list[dict[str, Any]]:
    return [message for message in conversation.messages if message["role"] == "assistant"]


def _has_calls(conversation: Conversation) -> bool:
    return any("tool_calls" in message or message["role"] == "tool" for message in conversation.messages)
