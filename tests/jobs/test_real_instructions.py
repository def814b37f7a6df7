"""Real instruction files of four formats: every row is rendered, to the ids and the mask that transformers gives."""

import os
from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from qwen_core.data.conversations import read_records, to_conversation
from qwen_core.jobs.instruct import render_conversations
from qwen_core.tokenizer import load_tokenizer, save_tokenizer
from tests.jobs.models import tokenizer_of

FOLDER = Path(os.environ.get("QWEN_CORE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data")) / "instruct"
FILES = ("alpaca_zh_demo.json", "glaive_toolcall_zh_demo.json", "v1_sft_demo.jsonl", "gsm8k_train.jsonl.gz")


@pytest.mark.parametrize("name", FILES)
def test_rows_are_rendered_as_transformers_renders_them(tmp_path, name):
    if not (FOLDER / name).is_file():
        pytest.skip(f"{FOLDER / name} is not there")
    save_tokenizer(tokenizer_of(), tmp_path)
    records = list(read_records(FOLDER / name, Counter()))[:40]
    rows = render_conversations(records, load_tokenizer(tmp_path), 10**6, "all")
    reference = AutoTokenizer.from_pretrained(tmp_path)
    for record, row in zip(records, rows, strict=True):
        told = to_conversation(record)
        theirs = reference.apply_chat_template(
            told.messages, tools=told.tools or None, return_dict=True, return_assistant_tokens_mask=True
        )
        assert row["input_ids"].tolist() == theirs["input_ids"]
        assert row["labels_mask"].tolist() == [bool(inside) for inside in theirs["assistant_masks"]]
