"""The n-grams that `filter` looks for: read from the evaluation sets, without those that are common speech."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from qwen_core.config import Recipe
from qwen_core.data.decontaminate import Item as EvaluationItem
from qwen_core.data.decontaminate import Ngrams, build_ngrams, count_documents, find_ngrams, read_items, without_common
from qwen_core.jobs.context import Context
from qwen_core.jobs.parts import Item, Made, make_parts, part_fingerprint
from qwen_core.jobs.sources import evaluation_paths
from qwen_core.parts import Part, read_rows, row_batches


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
    items = evaluation_items(context.recipe)
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
    documents = sum(read_rows(part.uri)["documents"].to_numpy() for part in counted)
    return without_common(ngrams, np.asarray(documents), section.max_documents)


def evaluation_items(recipe: Recipe) -> list[EvaluationItem]:
    """Read the recipe's evaluation sets.

    Args:
        recipe: Names the sets, and the fields that count.

    Returns:
        Their items.

    Raises:
        InputError: A set cannot be read.
    """
    fields = recipe.filter.decontaminate.fields
    return [
        item
        for name, path in evaluation_paths(recipe).items()
        for item in read_items(path, fields.get(name) or fields.get(path.name) or ())
    ]


def _count_part(given: dict[str, Any], ngrams: Ngrams) -> Made:
    """Count in how many documents of a part each n-gram stands."""
    counts = np.zeros(len(ngrams.hashes), np.int64)
    for table in row_batches(given["uri"], ["text"]):
        counts += count_documents(find_ngrams(table["text"].to_pylist(), ngrams), ngrams)
    return Made([pa.table({"documents": counts})])
