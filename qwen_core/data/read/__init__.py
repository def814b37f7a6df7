"""Readers: one file of any known format in, raw records out; what is broken is counted, the rest goes on.

address ─▶ blocks (unpacked) ─▶ records | tables | texts | web ─▶ tables of raw records

Memory is bounded by the longest record, whatever the file's size; a large plain file can be read in ranges, and which
records come of it does not depend on them.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pyarrow as pa

from qwen_core.data.read.blocks import file_blocks, unpacked_blocks
from qwen_core.data.read.fields import SCHEMA, Fields, Rows
from qwen_core.data.read.kinds import CODE, PROSE, kind_of
from qwen_core.data.read.records import read_json
from qwen_core.data.read.report import Report
from qwen_core.data.read.tables import header_line, read_csv, read_parquet
from qwen_core.data.read.texts import read_prose, read_whole
from qwen_core.data.read.web import read_web
from qwen_core.errors import InputError
from qwen_core.filesystem import is_passing, open_filesystem

__all__ = [
    "CODE",
    "MAX_RECORD_BYTES",
    "PROSE",
    "SCHEMA",
    "Fields",
    "Report",
    "Rows",
    "kind_of",
    "read_batches",
]

MAX_RECORD_BYTES = 16 << 20
_PARQUET = b"PAR1"
_CLOSED = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM)


def read_batches(
    path: str,
    fields: Fields,
    report: Report,
    kind: str | None = None,
    start: int = 0,
    end: int | None = None,
    max_record_bytes: int = MAX_RECORD_BYTES,
) -> Iterator[pa.Table]:
    """Read a file's records, or those that begin in a range of it.

    Args:
        path: Local path or address, of a kind that `kind_of` knows.
        fields: Which key or column is what.
        report: Gets what was lost or mended, by reason and place.
        kind: How to read it; by its name where not given.
        start: First byte of the range (first row group of Parquet).
        end: Byte (or row group) to stop before; `None` for all.
        max_record_bytes: A longer record is counted as `record_too_large`; it is never held.

    Yields:
        Tables of `SCHEMA`, of a few thousand rows or megabytes each, in the file's order.
    """
    report.path = path
    rows = Rows(fields, report, max_record_bytes)
    try:
        yield from _read(path, kind or kind_of(path), rows, start, end)
    except (OSError, InputError, pa.ArrowException) as fault:
        if is_passing(fault):
            raise
        report.drop("unreadable_file")
        if isinstance(fault, OSError) and fault.errno in _CLOSED:
            report.unread.append(path)
        # What was gathered before the fault is kept.
        yield rows.take()


def _read(path: str, kind: str | None, rows: Rows, start: int, end: int | None) -> Iterator[pa.Table]:
    filesystem, place = open_filesystem(path)
    with filesystem.open_input_file(place) as file:
        head = file.read(len(_PARQUET))
    if not head:
        rows.report.drop("empty_file")
        return
    if head == _PARQUET:
        if kind != "parquet":
            rows.report.repair("misnamed_file")
        yield from read_parquet(path, rows, start, end)
    elif kind == "parquet":
        rows.report.drop("unreadable_file")
    elif kind == "web":
        yield from read_web(path, rows)
    else:
        yield from _read_blocks(path, kind, rows, start, end)


def _read_blocks(path: str, kind: str | None, rows: Rows, start: int, end: int | None) -> Iterator[pa.Table]:
    # A record's range is one byte early, to see whether a line begins just there.
    early = start - 1 if start and kind != "prose" else start
    blocks = unpacked_blocks(path, rows.report, early)
    if kind == "records":
        yield from read_json(blocks, rows, start, end)
    elif kind == "table":
        head = header_line(file_blocks(path)) if start else b""
        yield from read_csv(blocks, rows, head, start, end)
    elif kind in ("code", "page"):
        yield from read_whole(blocks, rows, kind)
    else:
        yield from read_prose(blocks, rows, start, end)
