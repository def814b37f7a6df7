"""`instruct`: instruction files ─▶ ChatML tokens with a mask of the assistant's.

Reads `tokenizer`. Leaves `train.arrow`, `validation.arrow`.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from qwen_core.artifacts import Outcome, local_copy
from qwen_core.data.conversations import BadRecordError, to_conversation
from qwen_core.jobs.context import Context
from qwen_core.jobs.rendered import render_files
from qwen_core.jobs.sources import instruction_paths
from qwen_core.tokenizer import load_tokenizer, render_chat

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
    """
    tokenizer = load_tokenizer(local_copy(context.inputs["tokenizer"].path("tokenizer")))
    longest = context.section.max_seq_len

    def render(record: dict[str, Any]) -> dict[str, Any]:
        conversation = to_conversation(record)
        ids, mask = render_chat(conversation.messages, tokenizer)
        if len(ids) > longest:
            raise BadRecordError("too_long")
        return {
            "input_ids": ids,
            "labels_mask": mask,
            "language": conversation.language,
            "task": conversation.task,
        }

    return render_files(context, instruction_paths(context.recipe), render, _SCHEMA)
