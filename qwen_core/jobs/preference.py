"""`preference`: preference files ─▶ tokens of prompt, chosen and rejected reply.

Reads `tokenizer`. Leaves `train.arrow`, `validation.arrow`.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from qwen_core.artifacts import Outcome
from qwen_core.data.conversations import BadRecordError, Pair, to_pair
from qwen_core.jobs.context import Context
from qwen_core.jobs.rendered import Record, Rows, chat_tokenizer, render_files, tried
from qwen_core.jobs.sources import preference_paths
from qwen_core.tokenizer import ChatTokenizer, Encoded, Rendered, TemplateError, encode_rendered

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

    def render(records: list[Record]) -> Rows:
        return render_pairs(records, tokenizer, context.section.max_seq_len)

    return render_files(context, preference_paths(context.recipe), render, _SCHEMA)


def render_pairs(records: list[Record], tokenizer: ChatTokenizer, max_seq_len: int) -> Rows:
    """Render records of any known format.

    Args:
        records: As read.
        tokenizer: With its chat template.
        max_seq_len: Pairs with a longer prompt and reply are `too_long`.

    Returns:
        For each record a row, or the reason why there is none.
    """
    found = [tried(_read, record, tokenizer) for record in records]
    texts = [text for each in found if not isinstance(each, BadRecordError) for text in each[1]]
    encoded = iter(encode_rendered(texts, [text.spans for text in texts], tokenizer))
    return [
        each
        if isinstance(each, BadRecordError)
        else tried(_row, each[0], next(encoded), next(encoded), next(encoded), max_seq_len)
        for each in found
    ]


def _read(record: Record, tokenizer: ChatTokenizer) -> tuple[Pair, list[Rendered]]:
    """Render a pair's prompt, as it is asked with, and the conversations that both replies make of it."""
    pair = to_pair(record)
    replies = [{"role": "assistant", "content": reply} for reply in (pair.chosen, pair.rejected)]
    template = tokenizer.template
    try:
        prompt = template.render(pair.prompt, add_generation_prompt=True)
        return pair, [prompt, *(template.render([*pair.prompt, reply]) for reply in replies)]
    except TemplateError as error:
        raise BadRecordError("refused_by_template") from error


def _row(pair: Pair, prompt: Encoded, chosen: Encoded, rejected: Encoded, max_seq_len: int) -> Record:
    """Take the prompt, and of both replies what the assistant writes behind it."""
    row: Record = {"language": pair.language, "prompt_ids": prompt[0].astype(np.int64)}  # its bytes decide the row's id
    behind = slice(len(prompt[0]), None)  # earlier turns of the assistant belong to the prompt
    for name, (ids, is_reply) in (("chosen_ids", chosen), ("rejected_ids", rejected)):
        row[name] = ids[behind][is_reply[behind]].astype(np.int64)
    if len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) > max_seq_len:
        raise BadRecordError("too_long")
    return row
