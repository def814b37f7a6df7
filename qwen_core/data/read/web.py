"""Crawl files: WARC and WET through fastwarc, ARC (which fastwarc does not read) by its headers.

Records stream by; after a broken one the next header is sought: a gzip member where each record is one, else a line
that begins with `WARC/`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from qwen_core.data.read.arc import read_arc
from qwen_core.data.read.blocks import BLOCK_BYTES, file_blocks, unpacked_blocks
from qwen_core.data.read.encoding import decoded
from qwen_core.data.read.fields import Rows
from qwen_core.data.read.kinds import packing_of
from qwen_core.data.read.pages import Visit, add_page, add_response, address
from qwen_core.data.read.report import Report
from qwen_core.filesystem import is_passing, open_filesystem

_GZIP_MEMBER, _WARC_HEADER = b"\x1f\x8b\x08", b"\nWARC/"


def read_web(path: str, rows: Rows) -> Iterator[pa.Table]:
    """Read a crawl file: text records (WET) as they are, pages by their main text.

    Args:
        path: Local path or address.
        rows: Gathers the records.

    Yields:
        Tables of raw records; positions are numbers of records.

    Raises:
        OSError: The file cannot be opened.
    """
    head = next(unpacked_blocks(path, Report()), b"")  # a first look is not to count faults twice
    found = read_arc(path, rows) if head.startswith(b"filedesc:") else _warc(path, rows)
    for _ in found:
        if rows.is_full:
            yield rows.take()
    yield rows.take()


def _warc(path: str, rows: Rows) -> Iterator[None]:
    """Iterate over records, over faults too."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    wanted = WarcRecordType.response | WarcRecordType.conversion | WarcRecordType.resource
    packing = packing_of(next(file_blocks(path), b""))
    if packing not in (None, "gzip", "zstd"):
        rows.report.drop("unreadable_file")
        return
    mark = _GZIP_MEMBER if packing == "gzip" else _WARC_HEADER
    faults = _Faults(rows)
    number = 0
    start: int | None = 0
    while start is not None:
        faults.begin(start)
        with _seekable(path, start) as file:
            records = iter(ArchiveIterator(file, record_types=wanted))
            while True:
                try:
                    record = next(records, None)
                    if record is None:
                        faults.settle()
                        return
                    faults.passed(record.stream_pos)
                    _add_warc(record, number, rows)
                except BaseException as fault:
                    if not _is_of_parser(fault) or is_passing(fault):
                        raise
                    faults.met()
                    break
                number += 1
                yield
        start = None if packing == "zstd" else _next_record(path, faults.place + 1, mark)
    faults.settle()


class _Faults:
    """Counts each broken record once: it is met behind the record before, and again where reading begins anew."""

    def __init__(self, rows: Rows) -> None:
        self._report = rows.report
        self._is_owed = False
        self._is_new = True
        self._owed_at = 0
        self.place = 0

    def begin(self, start: int) -> None:
        self._is_new = True
        self._owed_at = self.place
        self.place = start

    def passed(self, place: int) -> None:
        self.settle()
        self._is_new = False
        self.place = max(self.place, place)

    def met(self) -> None:
        if self._is_new:
            self._drop(self.place)
        self._is_owed = not self._is_new

    def settle(self) -> None:
        if self._is_owed:
            self._drop(self._owed_at if self._is_new else self.place)

    def _drop(self, place: int) -> None:
        self._is_owed = False
        self._report.lose("broken_record", place)


def _is_of_parser(fault: BaseException) -> bool:
    """Tell the parser's own errors, which have no common base and may be panics, from a wish to stop."""
    return isinstance(fault, Exception) or type(fault).__name__ == "PanicException"


def _next_record(path: str, place: int, mark: bytes) -> int | None:
    """Find where a record begins at or after a place.

    Returns:
        Its offset; `None` where no record follows.
    """
    before = b""
    for block in file_blocks(path, place):
        window = before + block
        found = window.find(mark)
        if found >= 0:
            return int(place - len(before) + found + (mark == _WARC_HEADER))
        place += len(block)
        before = window[-(len(mark) - 1) :]
    return None


def _add_warc(record: Any, number: int, rows: Rows) -> None:
    from fastwarc.warc import WarcRecordType

    if record.content_length > rows.max_bytes:
        rows.report.lose("record_too_large", number)
        return
    visit = Visit(number, address(record.headers.get("WARC-Target-URI")), record.headers.get("WARC-Date"))
    body = record.reader.read()
    if record.record_type == WarcRecordType.conversion:
        rows.add(decoded(body, rows.report, number), number, {}, visit.url, visit.timestamp)
    elif record.record_type == WarcRecordType.resource:
        # Crawlers store their own logs as resources of a scheme of their own.
        is_log = (visit.url or "").startswith("metadata:")
        add_page(visit, body, "log" if is_log else str(record.headers.get("Content-Type") or ""), None, rows)
    elif record.http_headers is None:
        rows.report.lose("not_html", number)
    else:
        http = record.http_headers
        add_response(visit, http.status_code, {name.lower(): value for name, value in http.astuples()}, body, rows)


def _seekable(path: str, start: int) -> io.BufferedReader:
    filesystem, place = open_filesystem(path)
    file = filesystem.open_input_file(place)
    file.seek(start)
    return io.BufferedReader(_Seekable(file), BLOCK_BYTES if filesystem.type_name == "local" else 8 * BLOCK_BYTES)


class _Seekable(io.RawIOBase):
    """A file of pyarrow's as one of Python's, which is read in large blocks: each is a request to an object store."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return int(self._file.readinto(buffer))

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()
        super().close()
