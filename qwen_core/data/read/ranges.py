"""How a file is read in parts, and the fingerprint of each: one pass over its bytes.

Lines of JSON and CSV are cut just behind a line end, so the hash of a range is that of its records alone: a file that
has grown at its end keeps the hashes of the ranges before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow.parquet as pq

from qwen_core.data.read.blocks import file_blocks
from qwen_core.data.read.kinds import is_utf16, packing_of
from qwen_core.data.read.records import is_json_lines
from qwen_core.data.read.texts import TEXT_BLOCK_BYTES
from qwen_core.filesystem import open_filesystem

_PARQUET = b"PAR1"
_LINE_END, _QUOTE = 10, 34


@dataclass(frozen=True)
class Range:
    """A part of a file.

    Attributes:
        start: First byte, or row group of Parquet.
        end: Byte, or row group, to stop before; `None` for the file's end.
        size: Bytes, about.
        content_hash: Of kind, start and content.
    """

    start: int
    end: int | None
    size: int
    content_hash: str


def plan_ranges(path: str, kind: str, size: int, range_bytes: int) -> list[Range]:
    """Decide in which parts a file is read.

    Args:
        path: Local path or address.
        kind: As `kind_of` tells it.
        size: Of the file, in bytes.
        range_bytes: Larger files are cut, where their kind allows it: plain JSON lines, CSV without line ends inside of
            quotes, texts, and Parquet of several row groups.

    Returns:
        Ranges in order; one for a file that is not cut.

    Raises:
        OSError: The file cannot be read.
    """
    blocks = file_blocks(path)
    head = next(blocks, b"")
    blocks = chain([head], blocks)
    is_plain = size > range_bytes and not packing_of(head) and not is_utf16(head)
    if head.startswith(_PARQUET):
        return _row_groups(path, kind, size, range_bytes, blocks)
    if is_plain and kind == "records" and is_json_lines(head):
        return list(_line_ranges(blocks, kind, range_bytes, b""))
    if is_plain and kind == "table":
        found = _table_ranges(blocks, kind, range_bytes, head.partition(b"\n")[0])
        return found or _whole(file_blocks(path), kind, size)
    if is_plain and kind == "prose":
        return _text_ranges(blocks, kind, size, range_bytes)
    return _whole(blocks, kind, size)


def _whole(blocks: Iterator[bytes], kind: str, size: int) -> list[Range]:
    return [Range(0, None, size, _hash_of(blocks, kind))]


def _line_ranges(
    blocks: Iterator[bytes], kind: str, range_bytes: int, header: bytes, watch: Callable[[bytes], None] | None = None
) -> Iterator[Range]:
    start = offset = 0
    digest = _started(kind, start, header)
    for block in blocks:
        if watch:
            watch(block)
        place = 0
        # Each range ends behind the first line end at or after its full size.
        while (found := block.find(b"\n", max(place, start + range_bytes - 1 - offset))) >= 0:
            digest.update(memoryview(block)[place : found + 1])
            end = offset + found + 1
            yield Range(start, end, end - start, digest.hexdigest())
            start, place = end, found + 1
            digest = _started(kind, start, header)
        digest.update(memoryview(block)[place:])
        offset += len(block)
    if offset > start:
        yield Range(start, None, offset - start, digest.hexdigest())


def _table_ranges(blocks: Iterator[bytes], kind: str, range_bytes: int, header: bytes) -> list[Range] | None:
    """Cut a table whose every line end ends a row: an even number of quotes stands before each."""
    quotes = _Quotes()
    found = []
    for part in _line_ranges(blocks, kind, range_bytes, header, quotes.watch):
        if not quotes.are_closed:
            return None
        found.append(part)
    return found if quotes.are_closed else None


class _Quotes:
    """Counts quotes up to each line end."""

    def __init__(self) -> None:
        self._is_odd = 0
        self.are_closed = True

    def watch(self, block: bytes) -> None:
        values = np.frombuffer(block, np.uint8)
        before = np.cumsum(values == _QUOTE)
        at_ends = (before[values == _LINE_END] + self._is_odd) % 2
        self.are_closed = self.are_closed and not at_ends.any()
        self._is_odd = (self._is_odd + int(before[-1])) % 2


def _text_ranges(blocks: Iterator[bytes], kind: str, size: int, range_bytes: int) -> list[Range]:
    """Cut a text at multiples of its blocks; what is read of it reaches over the bound, so all of it is hashed."""
    step = max(1, range_bytes // TEXT_BLOCK_BYTES) * TEXT_BLOCK_BYTES
    starts = range(0, size, step)
    digest = _hash_of(blocks, kind)
    return [
        Range(start, start + step if start + step < size else None, min(step, size - start), _derived(digest, start))
        for start in starts
    ]


def _row_groups(path: str, kind: str, size: int, range_bytes: int, blocks: Iterator[bytes]) -> list[Range]:
    digest = _hash_of(blocks, kind)
    filesystem, place = open_filesystem(path)
    try:
        with filesystem.open_input_file(place) as opened:
            metadata = pq.read_metadata(opened)
    except (ValueError, OSError):  # pyarrow's own errors are both; the reader will count the file
        return [Range(0, None, size, digest)]
    sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
    starts, held = [0], 0
    for group, group_bytes in enumerate(sizes):
        if held >= range_bytes:
            starts.append(group)
            held = 0
        held += group_bytes
    if len(starts) == 1:
        return [Range(0, None, size, digest)]
    ends = [*starts[1:], len(sizes)]
    total = max(1, sum(sizes))
    return [
        Range(start, end, size * sum(sizes[start:end]) // total, _derived(digest, start, end))
        for start, end in zip(starts, ends, strict=True)
    ]


def _started(kind: str, start: int, header: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(f"{kind}\0{start}\0".encode() + header, digest_size=16)


def _hash_of(blocks: Iterator[bytes], kind: str) -> str:
    digest = _started(kind, 0, b"")
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _derived(digest: str, *bounds: int) -> str:
    return hashlib.blake2b(f"{digest}\0{bounds}".encode(), digest_size=16).hexdigest()
