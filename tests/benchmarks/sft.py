"""Fine-tuning on real instructions: conversations packed into rows, beside one padded conversation a row."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from qwen_core.config import load_recipe
from qwen_core.data.conversations import read_records
from qwen_core.jobs.instruct import render_conversations
from qwen_core.model import CausalLM, ModelConfig, initialise
from qwen_core.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from qwen_core.train.conversations import Conversations
from tests.benchmarks.corpus import SHARED, is_here, texts
from tests.benchmarks.measure import timed
from tests.benchmarks.precision import DTYPE, PRECISION

_FILES = ("alpaca_en_demo.json", "alpaca_zh_demo.json", "gsm8k_train.jsonl.gz")
_ROW, _PADDED_BATCH, _PASSES = 1024, 8, 12


def main() -> None:
    """Count real tokens only, forward and backward, in CPU time of one thread."""
    if not is_here("instruct", "pretrain"):
        print(f"sft: passed over, {SHARED} is not there")
        return
    torch.set_num_threads(1)
    recipe = load_recipe("demo")
    table, vocab_size = _conversations()
    figures = recipe.model.model_dump(include=set(ModelConfig.__dataclass_fields__)) | {"vocab_size": vocab_size}
    model = CausalLM(ModelConfig(**figures)).to(DTYPE)
    initialise(model, seed=1)
    random = np.random.default_rng(1)
    rates = {}
    print(f"Fine-tuning on {table.num_rows:,} conversations, the demo's model, {PRECISION}, one thread")
    for name, rows, size in (
        ("packed", Conversations(table, packed_seq_len=_ROW), 2),
        ("padded", Conversations(table), _PADDED_BATCH),
    ):
        batches = [rows.batch(random.integers(0, len(rows), size).tolist()) for _ in range(_PASSES)]

        def work(batches: list = batches) -> None:
            for batch in batches:
                losses = model(batch.input_ids, segment_ids=batch.segment_ids, labels=batch.labels)
                (losses.sum() / batch.count).backward()
                model.zero_grad()

        seconds, _ = timed(work)
        tokens, places = sum(batch.tokens for batch in batches), sum(batch.input_ids.numel() for batch in batches)
        rates[name] = tokens / seconds
        print(f"  {name:10} {tokens / seconds:8,.0f} tokens/s   {100 * (1 - tokens / places):5.1f}% padding")
    print(f"  packed is {rates['packed'] / rates['padded']:.2f} times as fast as padded")


def _conversations() -> tuple[pa.Table, int]:
    """Render the shared instruction files with a tokenizer trained on prose of both languages."""
    sample = texts(("pretrain/en_tech", "pretrain/zh_tech"))[::8]
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(train_tokenizer(iter([sample]), 4096, 2), folder)
        tokenizer = load_tokenizer(Path(folder))
    rows = []
    for name in _FILES:
        records = list(read_records(SHARED / "instruct" / name, Counter()))
        rows += [row for row in render_conversations(records, tokenizer, _ROW, "all") if isinstance(row, dict)]
    columns = {
        "input_ids": pa.array([row["input_ids"] for row in rows], pa.list_(pa.uint32())),
        "labels_mask": pa.array([row["labels_mask"] for row in rows], pa.list_(pa.bool_())),
    }
    return pa.table(columns), tokenizer.vocab_size
