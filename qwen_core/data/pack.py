"""Packing: documents' tokens laid into sequences of one length, by one of two methods.

    documents ─▶ concatenate: end to end, cut where a sequence is full ──┐
              └▶ best_fit: pieces of at most a sequence, padded ─────────┴─▶ pieces in the rows' order ─▶ table

Whatever the method, a row's padding stands at its end, and a piece that continues a document begins anew: attention
does not reach back into another row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qwen_core.data.bestfit import best_fit, cut
from qwen_core.data.packed import packed_schema

Ints = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.uint32]
Group = tuple[str, str]


@dataclass(frozen=True)
class Packed:
    """Packed documents, as rows of `packed.packed_schema`, and how many of how many documents were cut."""

    table: pa.Table
    documents: int
    cut_documents: int


@dataclass(frozen=True)
class _Layout:
    """Where pieces go: tokens [P] and document [P] of each piece, offset in its document [P], tokens of each row [R].

    Pieces stand in the order of the rows, without gaps: the first row's come first.
    """

    pieces: Ints
    document: Ints
    offset: Ints
    rows: Ints
    row_of_piece: Ints


def pack(
    tokens: Tokens,
    lengths: Ints,
    *,
    max_seq_len: int,
    separator: int,
    token_bytes: Ints,
    method: str = "concatenate",
    order: Ints | None = None,
    language: str | None = None,
    source: str | None = None,
) -> Packed:
    """Lay documents into sequences, each closed by the separator.

    Args:
        tokens: Of all documents, one behind another, each with its separator, [T].
        lengths: Tokens of each document, separator included, [N].
        max_seq_len: Tokens in a sequence; rows are filled up with separators.
        separator: `<|endoftext|>`.
        token_bytes: UTF-8 bytes of each token, [V].
        method: `concatenate` or `best_fit`.
        order: Numbers of the documents to lay, in order, repeats allowed; all of them where it is not given.
        language: Of all the documents, where it is one.
        source: Of all the documents, where it is one.

    Returns:
        The rows.
    """
    order = np.arange(len(lengths)) if order is None else np.asarray(order, dtype=np.int64)
    layout = METHODS[method](lengths[order], max_seq_len)
    starts = (lengths.cumsum() - lengths)[order][layout.document] + layout.offset
    laid = _gather(tokens, starts, layout.pieces)
    pieces_of_document = np.bincount(layout.document, minlength=len(order))
    table = _table(laid, layout, max_seq_len, separator, token_bytes, language, source)
    return Packed(table, len(order), int((pieces_of_document > 1).sum()))


def _concatenate(lengths: Ints, max_seq_len: int) -> _Layout:
    total = int(lengths.sum())
    starts = lengths.cumsum() - lengths
    bounds = np.arange(0, total, max_seq_len)
    begins = np.union1d(starts, bounds)
    document = np.searchsorted(starts, begins, side="right") - 1
    rows = np.minimum(total - bounds, max_seq_len)
    return _Layout(np.diff(begins, append=total), document, begins - starts[document], rows, begins // max_seq_len)


def _best_fit(lengths: Ints, max_seq_len: int) -> _Layout:
    pieces, document = cut(lengths, max_seq_len)
    sequence = best_fit(pieces, max_seq_len)
    # Inside a row pieces stand in the documents' order, or the long ones would always come first.
    order = np.argsort(sequence, kind="stable")
    begins = pieces.cumsum() - pieces
    offset = begins - (lengths.cumsum() - lengths)[document]
    rows = np.bincount(sequence, weights=pieces).astype(np.int64)
    return _Layout(pieces[order], document[order], offset[order], rows, sequence[order])


METHODS: Mapping[str, Callable[[Ints, int], _Layout]] = {"concatenate": _concatenate, "best_fit": _best_fit}
"""How documents are laid out, by the recipe's word."""


def _gather(tokens: Tokens, starts: Ints, lengths: Ints) -> Tokens:
    """Copy pieces of an array one behind another; Arrow's `take` does it without an index for each token."""
    if not len(lengths):
        return tokens[:0]
    if np.array_equal(starts[1:], starts[:-1] + lengths[:-1]):  # as they stand
        return tokens[starts[0] : starts[-1] + lengths[-1]]
    views = pa.LargeListViewArray.from_arrays(pa.array(starts), pa.array(lengths), pa.array(tokens))
    return np.asarray(views.flatten().to_numpy())


def _table(
    laid: Tokens,
    layout: _Layout,
    max_seq_len: int,
    separator: int,
    token_bytes: Ints,
    language: str | None,
    source: str | None,
) -> pa.Table:
    """Put pieces into rows, padded, with the bounds of documents and the bytes that are predicted."""
    count = len(layout.rows)
    row_starts = layout.rows.cumsum() - layout.rows
    begins = layout.pieces.cumsum() - layout.pieces
    sizes = token_bytes.astype(np.uint32)[laid]
    sizes[begins] = 0  # a document's first token is not predicted
    num_bytes = np.add.reduceat(sizes, row_starts, dtype=np.int64) if count else row_starts
    if (layout.rows == max_seq_len).all():
        filled = laid
    else:
        filled = np.full(count * max_seq_len, separator, dtype=np.uint32)
        filled.reshape(count, max_seq_len)[np.arange(max_seq_len) < layout.rows[:, None]] = laid
    offsets = np.searchsorted(layout.row_of_piece, np.arange(count + 1))
    starts = begins - row_starts[layout.row_of_piece]
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(filled), max_seq_len),
        pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(starts.astype(np.uint32))),
        pa.array(num_bytes.astype(np.uint32)),
        pa.array(layout.rows.astype(np.uint32)),
        pa.array([language] * count, pa.string()),
        pa.array([source] * count, pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=packed_schema(max_seq_len))


def spread(groups: Mapping[Group, int], limit: int, sizes: Mapping[Group, int] | None = None) -> dict[Group, int]:
    """Share out a number of sequences over groups: one each in turn, the largest group first.

    Args:
        groups: Sequences that each group has.
        limit: Sequences in all.
        sizes: How large the groups are, where their sequences do not tell.

    Returns:
        Sequences that each group gets; a small group is served before a large one takes a second.
    """
    granted = dict.fromkeys(groups, 0)
    known = groups if sizes is None else sizes
    order = sorted(groups, key=lambda group: (-known[group], group))
    while limit > 0:
        hungry = [group for group in order if granted[group] < groups[group]]
        if not hungry:
            break
        for group in hungry[:limit]:
            granted[group] += 1
        limit -= len(hungry[:limit])
    return granted
