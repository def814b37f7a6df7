"""Packing: documents' tokens laid end to end and cut into sequences of one length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qwen_core.data.packed import packed_schema

Ints = npt.NDArray[np.int64]


def pack(
    documents: Sequence[Sequence[int]],
    *,
    max_seq_len: int,
    separator: int,
    token_bytes: Ints,
    language: str | None = None,
    source: str | None = None,
) -> pa.Table:
    """Lay documents end to end, each closed by the separator, and cut them into sequences.

    Args:
        documents: Token ids of each.
        max_seq_len: Tokens in a sequence; the last one is filled up with separators.
        separator: `<|endoftext|>`.
        token_bytes: UTF-8 bytes of each token, [V].
        language: Of all the documents, where it is one.
        source: Of all the documents, where it is one.

    Returns:
        Rows of `packed.packed_schema`.
    """
    schema = packed_schema(max_seq_len)
    lengths = np.array([len(ids) + 1 for ids in documents], dtype=np.int64)
    total = int(lengths.sum())
    count = -(-total // max_seq_len)
    flat = np.full(count * max_seq_len, separator, dtype=np.int64)
    starts = np.concatenate(([0], lengths.cumsum()[:-1])) if len(lengths) else np.zeros(0, np.int64)
    for start, ids in zip(starts, documents, strict=True):
        flat[start : start + len(ids)] = ids
    # A document that goes on in the next sequence begins there anew.
    begins = np.union1d(starts, np.arange(count) * max_seq_len)
    is_predicted = np.arange(len(flat)) < total
    is_predicted[begins] = False
    sizes = np.where(is_predicted, token_bytes[flat], 0).reshape(count, max_seq_len).sum(1)
    offsets = np.searchsorted(begins, np.arange(count + 1) * max_seq_len)
    tokens = np.clip(total - np.arange(count) * max_seq_len, 0, max_seq_len)
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(flat.astype(np.uint32)), max_seq_len),
        pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array((begins % max_seq_len).astype(np.uint32))),
        pa.array(sizes.astype(np.uint32)),
        pa.array(tokens.astype(np.uint32)),
        pa.array([language] * count, pa.string()),
        pa.array([source] * count, pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def spread(groups: dict[tuple[str, str], int], limit: int) -> dict[tuple[str, str], int]:
    """Share out a number of sequences over groups: one each in turn, the largest group first.

    Args:
        groups: Sequences that each group has.
        limit: Sequences in all.

    Returns:
        Sequences that each group gets; a small group is served before a large one takes a second.
    """
    granted = dict.fromkeys(groups, 0)
    order = sorted(groups, key=lambda group: (-groups[group], group))
    while limit > 0:
        hungry = [group for group in order if granted[group] < groups[group]]
        if not hungry:
            break
        for group in hungry[:limit]:
            granted[group] += 1
        limit -= len(hungry[:limit])
    return granted
