"""`tokenizer`: deduplicated documents ─▶ a byte-level BPE.

Reads `dedup`. Leaves `tokenizer/` (tokenizer.json, tokenizer_config.json).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from qwen_core.artifacts import Outcome, upload
from qwen_core.jobs.context import Context, connect_ray
from qwen_core.jobs.corpus import document_files
from qwen_core.tokenizer import load_tokenizer, measure, save_tokenizer, train_tokenizer

_MEASURED_TEXTS = 50


def run(context: Context) -> Outcome:
    """Train on an even sample of the corpus.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome; `rows` counts the vocabulary, metrics tell how each language fares.
    """
    connect_ray()
    section = context.section
    files = document_files(context.inputs["dedup"])
    documents = ray.data.read_parquet(files, columns=["id", "text", "language"])
    share = _share(context.inputs["dedup"].details.get("text_bytes", 0), section.max_sample_bytes)
    sample = documents.map_batches(sampled, fn_kwargs={"share": share}, batch_format="pyarrow")
    measured: dict[str, list[str]] = {}
    context.progress(0, context.inputs["dedup"].rows, "documents")
    trained = train_tokenizer(_texts(context, sample, measured), section.vocab_size, section.min_frequency)
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(trained, Path(folder) / "tokenizer", context.recipe.pack.max_seq_len)
        tokenizer = load_tokenizer(Path(folder) / "tokenizer")
        upload(folder, context.attempt.data_uri)
    figures = measure(tokenizer, measured)
    return Outcome(
        rows=tokenizer.vocab_size, metrics=figures, details={"vocab_size": tokenizer.vocab_size, "sample_share": share}
    )


def sampled(batch: pa.Table, share: float) -> pa.Table:
    """Keep a share of the documents, by their ids, so that every language and source keeps its weight.

    Args:
        batch: With `id`.
        share: 0 to 1.

    Returns:
        The kept rows.
    """
    if share >= 1:
        return batch
    digests = [hashlib.blake2b(str(i).encode(), digest_size=4).digest() for i in batch["id"].to_pylist()]
    draws = np.frombuffer(b"".join(digests), dtype=">u4") / 2**32
    return batch.filter(pa.array(draws < share))


def _share(text_bytes: int, max_sample_bytes: int) -> float:
    return min(1.0, max_sample_bytes / text_bytes) if text_bytes else 1.0


def _texts(context: Context, sample: ray.data.Dataset, measured: dict[str, list[str]]) -> Iterator[list[str]]:
    """Stream the sample's texts to the trainer, and put some of each language aside for measuring."""
    done, total = 0, context.inputs["dedup"].rows
    for batch in sample.iter_batches(batch_size=1024, batch_format="pyarrow"):
        texts = batch["text"].to_pylist()
        for language in pc.unique(batch["language"]).to_pylist():
            kept = measured.setdefault(language or "unknown", [])
            chosen = batch["text"].filter(pc.equal(batch["language"], language)).to_pylist()
            kept += [text[:2000] for text in chosen[: max(0, _MEASURED_TEXTS - len(kept))]]
        done += len(texts)
        context.progress(done, total, "documents")
        yield texts
