"""ARC, the crawl format before WARC, which fastwarc does not read.

Internet Archive, ARC File Format (1996): a header line `URL IP date type length`, then so many bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from qwen_core.data.read.blocks import BLOCK_BYTES, unpacked_blocks
from qwen_core.data.read.fields import Rows
from qwen_core.data.read.pages import Visit, add_page, add_response, address

_MAX_HEADER_BYTES = 1 << 16


def read_arc(path: str, rows: Rows) -> Iterator[None]:
    """Read an ARC file record by record.

    Args:
        path: Local path or address.
        rows: Gathers the records.

    Yields:
        Nothing, behind each record.
    """
    stream = io.BufferedReader(_Stream(unpacked_blocks(path, rows.report)), BLOCK_BYTES)
    number = -1
    while line := stream.readline(_MAX_HEADER_BYTES):
        if not line.strip():
            continue
        header = _arc_header(line)
        if header is None:
            if b"://" in line:  # else a line of a body whose header was broken
                rows.report.lose("broken_record", number + 1)
                number += 1
            continue
        url, date, kind, size = header
        number += 1
        if size > rows.max_bytes:
            rows.report.lose("record_too_large", number)
            _skip(stream, size)
            continue
        body = stream.read(size)
        if len(body) < size:
            rows.report.repair("truncated_record", number)
        if not url.startswith("filedesc:"):
            _add_arc(Visit(number, address(url), date), body, kind, rows)
            yield


def _arc_header(line: bytes) -> tuple[str, str, str, int] | None:
    """Split a header line from its end, for addresses hold spaces."""
    parts = line.decode("utf-8", "replace").strip().rsplit(" ", 4)
    if len(parts) != 5 or "://" not in parts[0] or not parts[2].isdigit() or not parts[4].isdigit():
        return None
    date = parts[2]
    day = f"{date[:4]}-{date[4:6]}-{date[6:8]}T{date[8:10]}:{date[10:12]}:{date[12:14]}Z" if len(date) == 14 else date
    return parts[0], day, parts[3], int(parts[4])


def _add_arc(visit: Visit, body: bytes, kind: str, rows: Rows) -> None:
    if not body.startswith(b"HTTP/"):
        add_page(visit, body, kind, None, rows)
        return
    mark = re.search(rb"\r?\n\r?\n", body)
    head, content = (body[: mark.start()], body[mark.end() :]) if mark else (body, b"")
    status, *fields = head.decode("latin-1").splitlines()
    pairs = (field.split(":", 1) for field in fields if ":" in field)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    code = re.search(r" (\d{3})\b", status)
    add_response(visit, int(code[1]) if code else None, {"content-type": kind} | headers, content, rows)


def _skip(stream: Any, size: int) -> None:
    while size > 0 and (block := stream.read(min(size, BLOCK_BYTES))):
        size -= len(block)


class _Stream(io.RawIOBase):
    """Blocks as a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        taken = min(len(buffer), len(self._rest))
        buffer[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken
