"""A sample of a corpus: of each language the documents with the smallest hashes, whatever their order."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable

import pyarrow as pa


def sample_documents(tables: Iterable[pa.Table], num_documents: int, seed: int) -> dict[str, list[str]]:
    """Draw a sample; memory holds it and one table.

    Args:
        tables: With `id`, `text` and `language`.
        num_documents: Most of each language.
        seed: Decides which.

    Returns:
        Texts by language, languages sorted.
    """
    drawn: dict[str, list[tuple[int, str]]] = {}
    for table in tables:
        ranks = [_rank(name, seed) for name in table["id"].to_pylist()]
        languages = table["language"].to_pylist()
        for row in sorted(range(len(ranks)), key=ranks.__getitem__):
            heap = drawn.setdefault(languages[row] or "und", [])
            if len(heap) < num_documents:
                heapq.heappush(heap, (-ranks[row], table["text"][row].as_py()))
            elif -heap[0][0] > ranks[row]:
                heapq.heapreplace(heap, (-ranks[row], table["text"][row].as_py()))
    return {name: [text for _, text in sorted(drawn[name], reverse=True)] for name in sorted(drawn)}


def _rank(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "big")
