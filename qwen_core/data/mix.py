"""The mix: how often each document is taken, by its language and its source.

    languages, sources ─▶ cells (one for each pair) ─▶ a weight for each cell ─▶ whole copies, and one more by the draw

Every document's draw follows from its id, the seed and the purpose alone: how the corpus lies in files, and how many
workers read it, changes nothing. Where weights follow from a budget of tokens: `qwen_core.data.budget`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
Strings: TypeAlias = Sequence[str | None] | pa.Array | pa.ChunkedArray
Cell = tuple[str, str]
"""A language and a source; `unknown` where a document has none."""

_HEX_DIGITS = 16
_NOT_HEX = 255
_NIBBLES = np.full(256, _NOT_HEX, dtype=np.uint8)
_NIBBLES[np.frombuffer(b"0123456789abcdef", dtype=np.uint8)] = np.arange(16)


def draws(ids: Strings, seed: int, purpose: str) -> UInt64s:
    """Draw a number below 2^64 for each document, from its id, the seed and the purpose alone.

    Ids of 16 hexadecimal digits, as `ingest` gives them, are read as numbers, whole columns at once, and scrambled
    by SplitMix64 (Steele et al., 2014); other ids are hashed first, one by one.

    Args:
        ids: Of the documents.
        seed: The recipe's.
        purpose: Draws for different purposes are independent.

    Returns:
        The numbers, [N].
    """
    digest = hashlib.blake2b(purpose.encode(), digest_size=16, key=seed.to_bytes(8, "little")).digest()
    first, second = np.frombuffer(digest, dtype="<u8")
    # Two rounds with two keys: after one, draws for two purposes would be the same sequence, shifted.
    return _scramble(_scramble(_numbers(ids) ^ first) + second)


def cells_of(languages: Strings, sources: Strings) -> tuple[list[Cell], Ints]:
    """Group documents by language and source.

    Args:
        languages: Of the documents; a missing one is `unknown`.
        sources: Of the documents; the same.

    Returns:
        The pairs that occur, sorted, and for each document the number of its pair, [N].
    """
    names, codes = zip(*(_encoded(column) for column in (languages, sources)), strict=True)
    pairs, members = np.unique(codes[0] * max(1, len(names[1])) + codes[1], return_inverse=True)
    cells = [(names[0][pair // len(names[1])], names[1][pair % len(names[1])]) for pair in pairs.tolist()]
    order = sorted(range(len(cells)), key=cells.__getitem__)
    rank = np.empty(len(cells), dtype=np.int64)
    rank[order] = np.arange(len(cells))
    return [cells[index] for index in order], rank[members]


def weight_of(cell: Cell, languages: Mapping[str, float], sources: Mapping[str, float]) -> float:
    """Tell the weight that a recipe gives to a cell.

    Args:
        cell: Language and source.
        languages: Weights by name; 1 where a name is not given.
        sources: The same; the two multiply.

    Returns:
        The weight.
    """
    return languages.get(cell[0], 1.0) * sources.get(cell[1], 1.0)


def repeats(ids: Strings, weights: npt.NDArray[np.float64], seed: int, purpose: str = "mix") -> Ints:
    """Decide how often each document is taken.

    A weight of 2.5 takes each document twice and, by its draw, half of them a third time.

    Args:
        ids: Of the documents.
        weights: Of the documents, from 0, [N].
        seed: The recipe's.
        purpose: As in `draws`.

    Returns:
        Counts from 0, [N].
    """
    return np.floor(weights + _uniform(draws(ids, seed, purpose))).astype(np.int64)


def is_below(draw: UInt64s, share: npt.NDArray[np.float64] | float) -> npt.NDArray[np.bool_]:
    """Tell which draws fall into a share of all numbers.

    Args:
        draw: As `draws` gave them, [N].
        share: 0 to 1, one or [N].

    Returns:
        [N].
    """
    return np.asarray(_uniform(draw) < share)


def _uniform(draw: UInt64s) -> npt.NDArray[np.float64]:
    """Bring draws into [0, 1): of the top 53 bits, for all 64 could round up to 1."""
    return (draw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _encoded(column: Strings) -> tuple[list[str], Ints]:
    """Number a column's values; return the names and each row's number."""
    encoded = pc.dictionary_encode(pc.fill_null(_array(column), "unknown"))
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def _array(column: Strings) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column.cast(pa.string()) if isinstance(column, pa.Array) else pa.array(column, pa.string())


def _numbers(ids: Strings) -> UInt64s:
    """Read ids of 16 hexadecimal digits as numbers; hash the others."""
    column = _array(ids)
    lengths = pc.binary_length(column).to_numpy(zero_copy_only=False)
    numbers = np.zeros(len(column), dtype=np.uint64)
    is_hex = lengths == _HEX_DIGITS
    if is_hex.any():
        fitting = column.filter(pa.array(is_hex))
        start = np.frombuffer(fitting.buffers()[1], dtype=np.int32)[fitting.offset]
        text = np.frombuffer(fitting.buffers()[2], dtype=np.uint8)[start : start + len(fitting) * _HEX_DIGITS]
        digits = _NIBBLES[text].reshape(-1, _HEX_DIGITS)
        numbers[is_hex] = ((digits[:, ::2] << 4) | digits[:, 1::2]).view(">u8")[:, 0]
        is_hex[is_hex] = (digits != _NOT_HEX).all(1)
    others = np.flatnonzero(~is_hex)
    hashed = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in column.take(others).to_pylist()]
    numbers[others] = np.frombuffer(b"".join(hashed), dtype="<u8")
    return numbers


def _scramble(values: UInt64s) -> UInt64s:
    """SplitMix64's step: add the golden ratio, then mix so that each bit depends on all."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
