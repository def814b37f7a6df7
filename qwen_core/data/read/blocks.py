"""Bytes of a file, unpacked in a stream, and lines of bounded length.

address ─▶ file system ─▶ (gzip, bzip2, xz, zstd by their first bytes) ─▶ blocks ─▶ (offset, line)
"""

from __future__ import annotations

import bz2
import codecs
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import zstandard

from qwen_core.data.read.kinds import is_named_packed, is_utf16, packing_of
from qwen_core.data.read.report import Report
from qwen_core.filesystem import open_filesystem

BLOCK_BYTES = 1 << 20
_REMOTE_BLOCK_BYTES = 8 << 20  # each read is a request
# zstandard gives all that its input holds at once, and 128 KiB come of 4 bytes at worst: it is fed little, and less
# where much came of it.
_ZSTD_FEED_BYTES = range(64, 2048)
_MAGIC_BYTES = 6
_BROKEN = (zlib.error, OSError, EOFError, lzma.LZMAError, zstandard.ZstdError)


def file_blocks(path: str, start: int = 0) -> Iterator[bytes]:
    """Read a file as it is.

    Args:
        path: Local path or address.
        start: First byte.

    Yields:
        Blocks of a mebibyte, of an object store some more.

    Raises:
        OSError: The file cannot be opened or read.
    """
    filesystem, place = open_filesystem(path)
    size = BLOCK_BYTES if filesystem.type_name == "local" else _REMOTE_BLOCK_BYTES
    with filesystem.open_input_file(place) as file:
        file.seek(start)
        while block := file.read(size):
            yield block


def unpacked_blocks(path: str, report: Report, start: int = 0) -> Iterator[bytes]:
    """Read a file, unpacked where its first bytes say that it is packed; UTF-16 comes as UTF-8.

    Args:
        path: Local path or address.
        report: Gets `truncated_file` where an archive is broken or ends early: what came before is given; and the
            repair `misnamed_file` where the name says otherwise about packing.
        start: First byte; only for files that are not packed.

    Yields:
        Blocks.

    Raises:
        OSError: The file cannot be opened or read.
    """
    blocks = file_blocks(path, start)
    if start:
        yield from blocks
        return
    first = next(blocks, b"")
    packing = packing_of(first)
    if bool(packing) != is_named_packed(path):
        report.repair("misnamed_file")
    rejoined = _rejoined(first, blocks)
    unpacked = _unpacked(rejoined, packing, report) if packing else rejoined
    head = next(unpacked, b"")
    whole = _rejoined(head, unpacked)
    if is_utf16(head) and not head.startswith(b"\xff\xfe\x00\x00"):
        yield from (text.encode() for text in codecs.iterdecode(whole, "utf-16", errors="replace"))
    else:
        yield from whole


def lines(
    blocks: Iterator[bytes], report: Report, max_bytes: int, start: int = 0, end: int | None = None
) -> Iterator[tuple[int, bytes]]:
    r"""Cut blocks at line ends, without ever holding a line that is too long.

    Args:
        blocks: Bytes from `start` on.
        report: Gets `record_too_large`.
        max_bytes: Longest line.
        start: Offset of the first byte. Where it is not 0, the bytes up to and with the first `\n` belong to another
            range and are passed over; so the range must start one byte early, for a line may begin just there.
        end: Lines that begin at or after this offset are another range's.

    Yields:
        Offset of a line's first byte, and the line without `\n`.
    """
    offset = start
    waiting: list[bytes] = []
    size = 0
    is_skipping = start > 0
    for block in blocks:
        *whole, rest = block.split(b"\n")
        for piece in whole:
            line_bytes = size + len(piece)
            if is_skipping:
                is_skipping = False
            elif line_bytes > max_bytes:
                report.lose("record_too_large", offset)
            else:
                yield offset, b"".join([*waiting, piece]) if waiting else piece
            offset += line_bytes + 1
            waiting, size = [], 0
            if end is not None and offset >= end:
                return
        size += len(rest)
        if rest and size <= max_bytes and not is_skipping:
            waiting.append(rest)
        elif rest:
            waiting = []
    if size > max_bytes and not is_skipping:
        report.lose("record_too_large", offset)
    elif waiting and not is_skipping:
        yield offset, b"".join(waiting)


def _rejoined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _unpacked(blocks: Iterator[bytes], packing: str, report: Report) -> Iterator[bytes]:
    """Unpack all members of an archive, one after the other; after a fault nothing more can be had."""
    members: dict[str, Callable[[], Any]] = {
        "gzip": lambda: _Gzip(),
        "bzip2": bz2.BZ2Decompressor,
        "xz": lzma.LZMADecompressor,
        "zstd": lambda: _Zstd(),
    }
    member: Any = None
    rest = b""
    for block in blocks:
        rest += block
        try:
            while rest:
                member = member or members[packing]()
                yield from _fed(member, rest)
                rest = b""
                if member.eof:
                    rest, member = member.unused_data.lstrip(b"\0"), None
                    if len(rest) < _MAGIC_BYTES:  # too few to tell the next member from what was appended
                        break
                    if packing_of(rest) != packing:
                        report.drop("trailing_bytes")
                        return
        except _BROKEN:
            report.drop("truncated_file")
            return
    if member is not None or rest:
        report.drop("truncated_file")


def _fed(member: Any, data: bytes) -> Iterator[bytes]:
    """Give a decompressor its input; ask for output a block at a time until it needs more."""
    block = member.decompress(data, BLOCK_BYTES)
    while block or not (member.eof or member.needs_input):
        if block:
            yield block
        if member.eof or member.needs_input:
            return
        block = member.decompress(b"", BLOCK_BYTES)


class _Gzip:
    """zlib's decompressor with the manners of those of bz2 and lzma."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        block = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = not self._inner.unconsumed_tail and len(block) < max_length
        return block


class _Zstd:
    """zstandard's decompressor with the manners of those of bz2 and lzma; `max_length` is kept only about."""

    def __init__(self) -> None:
        # Frames with a large window (`zstd --long`) are read too.
        self._inner = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
        self._waiting = memoryview(b"")
        self._feed_bytes = 512
        self.unused_data = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._waiting

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if data:
            self._waiting = memoryview(data)
        blocks, size = [], 0
        while self._waiting and size < max_length and not self._inner.eof:
            feed, self._waiting = self._waiting[: self._feed_bytes], self._waiting[self._feed_bytes :]
            block = self._inner.decompress(feed)
            wanted = self._feed_bytes // 8 if len(block) > max_length else self._feed_bytes * 2
            self._feed_bytes = min(max(wanted, _ZSTD_FEED_BYTES.start), _ZSTD_FEED_BYTES.stop)
            blocks.append(block)
            size += len(block)
        if self._inner.eof:
            self.unused_data = self._inner.unused_data + bytes(self._waiting)
            self._waiting = memoryview(b"")
        return b"".join(blocks)
