"""`preference`: preference files ─▶ ChatML tokens of prompt, chosen and rejected reply.

Reads `tokenizer`. Leaves `train.arrow`, `validation.arrow`.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from qwen_core.artifacts import Outcome, local_copy
from qwen_core.data.conversations import BadRecordError, to_pair
from qwen_core.jobs.context import Context
from qwen_core.jobs.rendered import render_files
from qwen_core.jobs.sources import preference_paths
from qwen_core.tokenizer import load_tokenizer, render_chat

_IDS = pa.list_(pa.uint32())
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt_ids", _IDS),
        ("chosen_ids", _IDS),
        ("rejected_ids", _IDS),
        ("language", pa.string()),
    ]
)


def run(context: Context) -> Outcome:
    """Render all pairs.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome, with the reasons of what was dropped.
    """
    tokenizer = load_tokenizer(local_copy(context.inputs["tokenizer"].path("tokenizer")))
    longest = context.section.max_seq_len

    def render(record: dict[str, Any]) -> dict[str, Any]:
        pair = to_pair(record)
        prompt, _ = render_chat(pair.prompt, tokenizer, add_generation_prompt=True)
        replies = {}
        for name, reply in (("chosen_ids", pair.chosen), ("rejected_ids", pair.rejected)):
            ids, mask = render_chat([*pair.prompt, {"role": "assistant", "content": reply}], tokenizer)
            behind = slice(len(prompt), None)  # earlier turns of the assistant belong to the prompt
            replies[name] = [token for token, is_reply in zip(ids[behind], mask[behind], strict=True) if is_reply]
            if len(prompt) + len(replies[name]) > longest:
                raise BadRecordError("too_long")
        return {"prompt_ids": prompt, **replies, "language": pair.language}

    return render_files(context, preference_paths(context.recipe), render, _SCHEMA)
