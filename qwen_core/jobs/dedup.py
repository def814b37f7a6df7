"""`dedup`: kept documents ─▶ one of each, exact and near duplicates dropped.

    part ─▶ text hash, MinHash bands ─▶ (compact arrays, no text) ─▶ clusters ─▶ best of each ─▶ part without the rest

MinHash LSH: documents that agree in one band of `hashes_per_bucket` values count as near duplicates; with 14 bands of
8, half of the pairs at a Jaccard similarity of about 0.72 are found, almost all above 0.8 (Lee et al., 2022).
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qwen_core.artifacts import Outcome, local_copy
from qwen_core.data.components import cluster, keep_best
from qwen_core.data.minhash import band_hashes, shingle_hashes, signatures
from qwen_core.data.words import split_words
from qwen_core.jobs.context import Context, connect_ray
from qwen_core.jobs.corpus import add_up, document_files, map_parts, write_documents
from qwen_core.jobs.filter import FILTERED_SCHEMA

_ROWS_AT_ONCE = 500
_EXAMPLES = 10


def run(context: Context) -> Outcome:
    """Find duplicates over all parts and drop them.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome, with the counts of exact and near duplicates and a report of the clusters.
    """
    connect_ray()
    files = document_files(context.inputs["filter"])
    sketched = map_parts(
        context,
        [{"index": i, "file": file} for i, file in enumerate(files)],
        _sketch_part,
        context.section.model_dump(),
    )
    columns = {
        name: np.concatenate([part[name] for part in sketched])
        for name in ("ids", "exact", "bands", "quality", "length")
    }
    by_text = cluster(columns["exact"][:, None])
    stays = keep_best(by_text, columns["quality"], columns["length"], columns["ids"])
    clusters = cluster(np.column_stack((columns["exact"], columns["bands"])))
    keep = keep_best(clusters, columns["quality"], columns["length"], columns["ids"])
    bounds = np.cumsum([0] + [len(part["ids"]) for part in sketched])
    parts = [
        {
            "index": index,
            "file": file,
            "keep": keep[bounds[index] : bounds[index + 1]],
            "target": context.output(f"documents/part-{index:05d}.parquet"),
        }
        for index, file in enumerate(files)
    ]
    total = add_up(map_parts(context, parts, _write_part, None))
    exact = int((~stays).sum())
    near = int((~keep).sum()) - exact
    drops = {name: count for name, count in (("exact_duplicate", exact), ("near_duplicate", near)) if count}
    return Outcome(
        rows=total["rows"],
        columns={field.name: str(field.type) for field in FILTERED_SCHEMA},
        drops=drops,
        metrics={"kept_ratio": total["rows"] / max(1, len(keep))},
        details={n: total[n] for n in ("by_language", "by_source", "text_bytes")} | _report(clusters, columns["ids"]),
    )


def _sketch_part(part: dict[str, Any], section: dict[str, Any]) -> dict[str, Any]:
    """Compute what is needed to compare one file's documents, a few hundred bytes each."""
    table = pq.read_table(local_copy(part["file"]), columns=["id", "text", "quality_score"])
    bands = [np.zeros((0, section["num_buckets"]), np.uint64)]
    exact = [np.zeros(0, np.uint64)]
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        texts = batch["text"].to_pylist()
        words = split_words(texts)
        hashes, offsets = shingle_hashes(words, section["shingle_words"])
        num_perm = section["num_buckets"] * section["hashes_per_bucket"]
        found = band_hashes(signatures(hashes, offsets, num_perm, section["seed"]), section["num_buckets"])
        digests = _text_hashes(texts)
        # Texts without a word (signs only) would all be alike: each is compared by its own hash.
        found[words.counts == 0] = digests[words.counts == 0, None]
        bands.append(found)
        exact.append(digests)
    return {
        "ids": np.asarray(table["id"].to_pylist(), dtype="U16"),
        "exact": np.concatenate(exact),
        "bands": np.concatenate(bands),
        "quality": table["quality_score"].to_numpy().astype(np.float64),
        "length": np.asarray(pc.binary_length(table["text"])).astype(np.int64),
    }


def _text_hashes(texts: list[str]) -> np.ndarray:
    """Hash texts, white space and case aside."""
    digests = [hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=8).digest() for text in texts]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _write_part(part: dict[str, Any], _: None) -> dict[str, Any]:
    """Write one file's documents that stay."""
    table = pq.read_table(local_copy(part["file"]))
    return write_documents(table.filter(pa.array(part["keep"])), part["target"])


def _report(clusters: np.ndarray, ids: np.ndarray) -> dict[str, Any]:
    """Tell how many clusters there are, how large, and name some by their documents' ids."""
    sizes = np.bincount(clusters) if len(clusters) else np.zeros(0, int)
    large = np.flatnonzero(sizes > 1)
    shown = large[np.argsort(-sizes[large], kind="stable")][:_EXAMPLES]
    examples = [{"size": int(sizes[number]), "ids": ids[clusters == number][:5].tolist()} for number in shown]
    return {"clusters": len(large), "largest_cluster": int(sizes.max(initial=0)), "examples": examples}
