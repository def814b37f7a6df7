"""The n-grams that `filter` looks for: read from the evaluation sets, without those that are common speech."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qwen_core.artifacts import local_copy
from qwen_core.data.decontaminate import Ngrams, build_ngrams, count_documents, find_ngrams, read_items, without_common
from qwen_core.jobs.context import Context
from qwen_core.jobs.parts import Item, Made, make_parts, part_fingerprint
from qwen_core.jobs.sources import evaluation_paths
from qwen_core.parts import Part


def evaluation_ngrams(context: Context, parts: Sequence[Part]) -> Ngrams | None:
    """Collect the n-grams of the recipe's evaluation sets.

    Args:
        context: Of `filter`.
        parts: The ingested corpus, in which common n-grams are counted where the recipe asks for it.

    Returns:
        The n-grams; `None` where the recipe names no set.

    Raises:
        InputError: A set cannot be read.
    """
    section = context.section.decontaminate
    items = [
        item
        for name, path in evaluation_paths(context.recipe).items()
        for item in read_items(path, section.fields.get(name) or section.fields.get(path.name) or ())
    ]
    if not items:
        return None
    ngrams = build_ngrams(items, section.words, section.characters, section.min_words, section.min_letter_ratio)
    if section.max_documents is None:
        return ngrams
    counted = make_parts(
        context,
        [
            Item(part_fingerprint(context, part=p.fingerprint, ngrams=ngrams.digest), p.text_bytes, {"uri": p.uri})
            for p in parts
        ],
        _count_part,
        ngrams,
        what="counts",
    )
    documents = sum(pq.read_table(local_copy(part.uri))["documents"].to_numpy() for part in counted)
    return without_common(ngrams, np.asarray(documents), section.max_documents)


def _count_part(given: dict[str, Any], ngrams: Ngrams) -> Made:
    """Count in how many documents of a part each n-gram stands."""
    texts = pq.read_table(local_copy(given["uri"]), columns=["text"])["text"].to_pylist()
    return Made([pa.table({"documents": count_documents(find_ngrams(texts, ngrams), ngrams)})])
