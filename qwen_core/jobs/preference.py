"""`preference`: preference files ─▶ tokens of prompt, chosen and rejected reply.

Reads `tokenizer`. Leaves `train.arrow`, `validation.arrow`.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from qwen_core.artifacts import Outcome
from qwen_core.data.conversations import BadRecordError, Pair, to_pair
from qwen_core.jobs.context import Context
from qwen_core.jobs.rendered import chat_tokenizer, render_files
from qwen_core.jobs.sources import preference_paths
from qwen_core.tokenizer import ChatTokenizer, TemplateError, render_chat

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
    tokenizer = chat_tokenizer(context)
    longest = context.section.max_seq_len

    def render(record: dict[str, Any]) -> dict[str, Any]:
        pair = to_pair(record)
        try:
            row = _render(pair, tokenizer)
        except TemplateError as error:
            raise BadRecordError("refused_by_template") from error
        if len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) > longest:
            raise BadRecordError("too_long")
        return row | {"language": pair.language}

    return render_files(context, preference_paths(context.recipe), render, _SCHEMA)


def _render(pair: Pair, tokenizer: ChatTokenizer) -> dict[str, Any]:
    """Render a pair's prompt, and of both replies what the assistant writes behind it."""
    prompt, _ = render_chat(pair.prompt, tokenizer, add_generation_prompt=True)
    row: dict[str, Any] = {"prompt_ids": prompt}
    for name, reply in (("chosen_ids", pair.chosen), ("rejected_ids", pair.rejected)):
        ids, mask = render_chat([*pair.prompt, {"role": "assistant", "content": reply}], tokenizer)
        behind = slice(len(prompt), None)  # earlier turns of the assistant belong to the prompt
        row[name] = [token for token, is_reply in zip(ids[behind], mask[behind], strict=True) if is_reply]
    return row
