"""`tokenizer`: deduplicated documents ─▶ a byte-level BPE.

Reads `dedup`. Leaves `tokenizer/` (tokenizer.json, tokenizer_config.json).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from qwen_core.artifacts import Manifest, Outcome, upload
from qwen_core.data.mix import draws, repeats
from qwen_core.jobs.context import Context, connect_ray
from qwen_core.jobs.corpus import document_files
from qwen_core.tokenizer import load_tokenizer, measure, save_tokenizer, train_tokenizer

_MEASURED_TEXTS = 50


def run(context: Context) -> Outcome:
    """Train on an even sample of the mixed corpus.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome; `rows` counts the vocabulary, metrics tell how each language fares.
    """
    connect_ray()
    section, mix, corpus = context.section, context.recipe.mix.model_dump(), context.inputs["dedup"]
    documents = ray.data.read_parquet(document_files(corpus), columns=["id", "text", "language", "source"])
    share = _share(corpus, mix, section.max_sample_bytes)
    options = {"mix": mix, "share": share, "seed": context.recipe.seed}
    sample = documents.map_batches(sampled, fn_kwargs=options, batch_format="pyarrow")
    measured: dict[str, list[str]] = {}
    context.progress(0, 0, "documents")
    trained = train_tokenizer(_texts(context, sample, measured), section.vocab_size, section.min_frequency)
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(trained, Path(folder) / "tokenizer", context.recipe.pack.max_seq_len)
        tokenizer = load_tokenizer(Path(folder) / "tokenizer")
        upload(folder, context.attempt.data_uri)
    figures = measure(tokenizer, measured)
    return Outcome(
        rows=tokenizer.vocab_size, metrics=figures, details={"vocab_size": tokenizer.vocab_size, "sample_share": share}
    )


def sampled(batch: pa.Table, mix: dict[str, Any], share: float, seed: int) -> pa.Table:
    """Take documents as often as the mix says, then keep a share of them by their ids.

    Args:
        batch: With `id`, `language`, `source`.
        mix: The recipe's weights.
        share: 0 to 1.
        seed: The recipe's.

    Returns:
        The taken rows, `text` and `language`.
    """
    ids, languages, sources = (batch[name].to_pylist() for name in ("id", "language", "source"))
    times = repeats(ids, languages, sources, mix, seed)
    times[draws(ids, seed, "sample") >= share * 2.0**64] = 0
    return batch.select(["text", "language"]).take(pa.array(np.repeat(np.arange(len(times)), times)))


def _share(corpus: Manifest, mix: dict[str, Any], max_sample_bytes: int) -> float:
    """Tell about which share of the mixed corpus is as large as the sample may be."""
    size = float(corpus.details.get("text_bytes", 0))
    for name, weights in (("by_language", mix["languages"]), ("by_source", mix["sources"])):
        rows = corpus.details.get(name, {})
        size *= sum(count * weights.get(key, 1.0) for key, count in rows.items()) / max(1, sum(rows.values()))
    return min(1.0, max_sample_bytes / size) if size else 1.0


def _texts(context: Context, sample: ray.data.Dataset, measured: dict[str, list[str]]) -> Iterator[list[str]]:
    """Stream the sample's texts to the trainer, and put some of each language aside for measuring."""
    done = 0
    for batch in sample.iter_batches(batch_size=1024, batch_format="pyarrow"):
        texts = batch["text"].to_pylist()
        for language in pc.unique(batch["language"]).to_pylist():
            kept = measured.setdefault(language or "unknown", [])
            chosen = batch["text"].filter(pc.equal(batch["language"], language)).to_pylist()
            kept += [text[:2000] for text in chosen[: max(0, _MEASURED_TEXTS - len(kept))]]
        done += len(texts)
        context.progress(done, 0, "documents")
        yield texts
