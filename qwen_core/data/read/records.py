"""JSON: one record a line, one array of records, or records one after the other over several lines."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import orjson
import pyarrow as pa

from qwen_core.data.read.blocks import lines
from qwen_core.data.read.encoding import decoded
from qwen_core.data.read.fields import Rows, clean_strings
from qwen_core.data.read.report import Report

_DECODER = json.JSONDecoder(strict=False)
_BETWEEN = re.compile(r"[\s,\[\]\ufeff]*")
# Where a record begins again after a broken one: a brace after a comma or a line end.
_NEXT = re.compile(r"[,\n]\s*(?=\{)")
_NOTHING = object()


def read_json(blocks: Iterator[bytes], rows: Rows, start: int = 0, end: int | None = None) -> Iterator[pa.Table]:
    """Read JSON records.

    Args:
        blocks: The file, unpacked, from one byte before `start` on (from 0 for 0).
        rows: Gathers the records.
        start: The range's first byte.
        end: The range's end; `None` for the file's.

    Yields:
        Tables of raw records. Positions are byte offsets of lines, or numbers of records where these are no lines.
    """
    first = next(blocks, b"")
    blocks = chain([first], blocks)
    if start == 0 and not is_json_lines(first):
        yield from _values(blocks, rows)
    else:
        yield from _json_lines(blocks, rows, max(0, start - 1), end)


def is_json_lines(head: bytes) -> bool:
    """Tell JSON lines from an array, and from records that stand over several lines.

    Args:
        head: The first bytes of a file.

    Returns:
        Whether each line is a record; a broken first line does not change how all the others are read.
    """
    line, ended, _ = head.lstrip(b"\xef\xbb\xbf \t\r\n").partition(b"\n")
    is_open = bool(ended) and line.startswith(b"{") and line.rstrip().endswith((b",", b"{", b"["))
    return not (line.startswith(b"[") or is_open)


def _json_lines(blocks: Iterator[bytes], rows: Rows, start: int, end: int | None) -> Iterator[pa.Table]:
    report = rows.report
    for offset, line in lines(blocks, report, rows.max_bytes, start, end):
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            record = _second_try(line, report, offset)
            if record is _NOTHING:
                continue
        rows.add_record(record, offset)
        if rows.is_full:
            yield rows.take()
    yield rows.take()


def _second_try(line: bytes, report: Report, offset: int) -> Any:
    """Parse what orjson refuses: other encodings, lone surrogates, NaN, control characters inside of strings."""
    if not line.strip():
        return _NOTHING
    try:
        record = _DECODER.decode(decoded(line, report, offset))
    except (ValueError, RecursionError):
        report.lose("invalid_json", offset)
        return _NOTHING
    return clean_strings(record, report, offset)


def _values(blocks: Iterator[bytes], rows: Rows) -> Iterator[pa.Table]:
    """Read values one after the other, whatever stands between; memory holds one record and one block."""
    report = rows.report
    # A byte that is no UTF-8 becomes a lone surrogate, and is then replaced and counted with its record.
    texts = codecs.iterdecode(blocks, "utf-8", errors="surrogateescape")
    window, place, number, is_ended = "", 0, 0, False
    while True:
        between = _BETWEEN.match(window, place)
        place = between.end() if between else place
        value, stop = _parsed(window, place)
        if value is _NOTHING and not is_ended and len(window) - place <= rows.max_bytes:
            window, place, is_ended = _widened(window, place, texts)
            continue
        if value is not _NOTHING:
            rows.add_record(clean_strings(value, report, number), number)
            place = stop
        elif place >= len(window):
            break
        else:
            report.lose("invalid_json" if len(window) - place <= rows.max_bytes else "record_too_large", number)
            window, place, is_ended = _after_fault(window, place, texts)
        number += 1
        if rows.is_full:
            yield rows.take()
    yield rows.take()


def _parsed(window: str, place: int) -> tuple[Any, int]:
    if place >= len(window):
        return _NOTHING, place
    try:
        return _DECODER.raw_decode(window, place)
    except (ValueError, RecursionError):
        return _NOTHING, place


def _widened(window: str, place: int, texts: Iterator[str]) -> tuple[str, int, bool]:
    """Forget what was read and append at least as much as is left, so that a long record is not tried too often."""
    rest = window[place:]
    parts, size = [rest], 0
    for text in texts:
        parts.append(text)
        size += len(text)
        if size >= len(rest):
            return "".join(parts), 0, False
    return "".join(parts), 0, True


def _after_fault(window: str, place: int, texts: Iterator[str]) -> tuple[str, int, bool]:
    """Find where the next record begins; what lies between is not held."""
    is_ended = False
    place += 1
    while True:
        found = _NEXT.search(window, place)
        if found:
            return window, found.end(), is_ended
        if is_ended:
            return window, len(window), True
        window = window[-1:]
        place = 0
        text = next(texts, None)
        is_ended = text is None
        window += text or ""
