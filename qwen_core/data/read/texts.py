r"""Whole files as documents: prose in blocks of bounded size, source code and pages one record each.

A long text is cut at the first empty line (else line end) after each multiple of 4 MiB, so that where it is cut does
not depend on the range that is read: a block belongs to the range in which its multiple lies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pyarrow as pa

from qwen_core.data.extract import licence_of, main_text
from qwen_core.data.read.encoding import decoded
from qwen_core.data.read.fields import Rows
from qwen_core.data.read.kinds import is_binary

TEXT_BLOCK_BYTES = 4 << 20
"""Ranges of a text are multiples of this."""

_SEARCH_BYTES = 1 << 16
_HEAD_BYTES = 8192
_SPDX = re.compile(rb"SPDX-License-Identifier:[ \t]*([\w.+() -]{1,100}?)[ \t]*(?:\*/|-->|[\r\n]|$)")


def read_prose(blocks: Iterator[bytes], rows: Rows, start: int = 0, end: int | None = None) -> Iterator[pa.Table]:
    """Read a text of any length.

    Args:
        blocks: The file, unpacked, from `start` on.
        rows: Gathers the records.
        start: The range's first byte, a multiple of `TEXT_BLOCK_BYTES`.
        end: The range's end, such a multiple, or `None` for the file's.

    Yields:
        Tables of raw records; positions are the multiples at which they begin.
    """
    for number, (position, raw) in enumerate(_pieces(blocks, start, end)):
        if number == 0 and is_binary(raw[:_HEAD_BYTES]):
            rows.report.lose("binary_file")
            return
        rows.add(decoded(raw, rows.report, position), position, {})
        if rows.is_full:
            yield rows.take()
    yield rows.take()


def read_whole(blocks: Iterator[bytes], rows: Rows, kind: str) -> Iterator[pa.Table]:
    """Read a file that is one document.

    Args:
        blocks: The file, unpacked.
        rows: Gathers the record.
        kind: `code` or `page`.

    Yields:
        One table.
    """
    raw = _up_to(blocks, rows.max_bytes)
    if raw is None or is_binary(raw[:_HEAD_BYTES]):
        rows.report.lose("record_too_large" if raw is None else "binary_file")
        return
    if kind == "page":
        html = page_string(raw, None, rows, 0)
        rows.add(main_text(html), 0, page_metadata(html))
    else:
        spdx = _SPDX.search(raw, 0, _HEAD_BYTES)
        metadata = {"licence": spdx[1].decode("ascii", "replace")} if spdx else {}
        rows.add(decoded(raw, rows.report), 0, metadata, is_code=True)
    yield rows.take()


def page_string(raw: bytes, charset: str | None, rows: Rows, position: int | str) -> str:
    """Decode a page: UTF-8 where it fits, whatever the page says; else what it says; else what is detected.

    Args:
        raw: The page.
        charset: What the server said.
        rows: Their report gets the repairs.
        position: Where in the file.

    Returns:
        Text.
    """
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    if not raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            pass
    encoding = charset or detect_encoding(raw, from_html_meta=True) or "utf-8"
    text = str(bytes_to_str(raw, encoding))
    rows.report.repair("invalid_encoding" if "\ufffd" in text else "foreign_encoding", position)
    return text


def page_metadata(html: str) -> dict[str, Any]:
    """Read title and licence off a page.

    Args:
        html: The page.

    Returns:
        `title` and `licence`, where the page has them.
    """
    title = re.search(r"<title[^>]*>([^<]{1,500})", html[:_SEARCH_BYTES], re.IGNORECASE)
    found = {"title": " ".join(title[1].split()) if title else None, "licence": licence_of(html)}
    return {name: value for name, value in found.items() if value}


def _up_to(blocks: Iterator[bytes], max_bytes: int) -> bytes | None:
    parts, size = [], 0
    for block in blocks:
        parts.append(block)
        size += len(block)
        if size > max_bytes:
            return None
    return b"".join(parts)


def _pieces(blocks: Iterator[bytes], start: int, end: int | None) -> Iterator[tuple[int, bytes]]:
    """Cut a text after each multiple of the block size; memory holds one piece."""
    waiting, offset = b"", start
    # The next cut is sought after this place; what lies before the first cut of a later range is the range's before.
    bound = start or TEXT_BLOCK_BYTES
    for block in chain(blocks, [None]):
        waiting += block or b""
        ahead = 0 if block is None else _SEARCH_BYTES
        while len(waiting) > bound - offset + ahead:
            cut = _bound(waiting, bound - offset, block is None)
            if bound > start:
                yield bound - TEXT_BLOCK_BYTES, waiting[:cut]
            waiting, offset = waiting[cut:], offset + cut
            bound += TEXT_BLOCK_BYTES
            if end is not None and bound > end:
                return
    if waiting.strip() and bound > start:
        yield bound - TEXT_BLOCK_BYTES, waiting


def _bound(data: bytes, place: int, is_last: bool) -> int:
    """Find the first empty line after a place; else the end of the file, where it is near, a line end, a character."""
    stop = place + _SEARCH_BYTES
    ends = [found + len(mark) for mark in (b"\n\n", b"\n\r\n") if (found := data.find(mark, place, stop)) >= 0]
    if ends:
        return min(ends)
    if is_last and len(data) <= stop:
        return len(data)
    line = data.find(b"\n", place, stop)
    if line >= 0:
        return line + 1
    while place < len(data) and data[place] & 0xC0 == 0x80:
        place += 1
    return place
