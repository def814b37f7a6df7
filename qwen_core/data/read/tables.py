"""Tables: Parquet by row groups, CSV and TSV row by row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qwen_core.data.read.blocks import lines
from qwen_core.data.read.encoding import decoded
from qwen_core.data.read.fields import Rows
from qwen_core.data.read.report import Report
from qwen_core.filesystem import is_passing, open_filesystem

_ROWS_AT_ONCE = 1024
_DELIMITERS = ",\t;|"


def read_parquet(path: str, rows: Rows, start: int = 0, end: int | None = None) -> Iterator[pa.Table]:
    """Read row groups; a broken one is counted, the next are read.

    Args:
        path: Local path or address.
        rows: Gathers the records.
        start: First row group.
        end: Row group to stop before; `None` for all.

    Yields:
        Tables of raw records; positions are row numbers in the file.

    Raises:
        OSError: The file cannot be opened.
        pyarrow.ArrowException: The file is no Parquet.
    """
    filesystem, place = open_filesystem(path)
    with filesystem.open_input_file(place) as opened, pq.ParquetFile(opened) as file:
        columns = _columns(file.schema_arrow, rows)
        if not rows.fields.has_text & set(columns):
            rows.report.drop("missing_text_column")
            return
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        for group in range(start, file.num_row_groups if end is None else min(end, file.num_row_groups)):
            first = sum(counts[:group])
            try:
                for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=columns):
                    _add_batch(batch, first, rows)
                    first += batch.num_rows
                    if rows.is_full:
                        yield rows.take()
            except (OSError, pa.ArrowException) as fault:
                if is_passing(fault):
                    raise
                lost = sum(counts[: group + 1]) - first
                rows.report.lose("broken_row_group", first, lost)
    yield rows.take()


def read_csv(
    blocks: Iterator[bytes], rows: Rows, head: bytes = b"", start: int = 0, end: int | None = None
) -> Iterator[pa.Table]:
    r"""Read delimited rows under a header; quoted fields may hold line ends.

    Args:
        blocks: The file, unpacked, from one byte before `start` on (from 0 for 0).
        rows: Gathers the records.
        head: The header line, for a range that does not begin with it.
        start: The range's first byte; only for files without line ends inside of quotes.
        end: The range's end; `None` for the file's.

    Yields:
        Tables of raw records; positions are byte offsets.
    """
    report = rows.report
    found = lines(blocks, report, rows.max_bytes, max(0, start - 1), end)
    if start == 0:
        _, head = next(found, (0, b""))
    header = decoded(head, report).replace("\r", "")
    delimiter = max(_DELIMITERS, key=header.count)
    names = next(csv.reader([header], delimiter=delimiter), [])
    if not rows.fields.has_text & {name.partition(".")[0] for name in names}:
        report.drop("missing_text_column")
        return
    csv.field_size_limit(rows.max_bytes)
    places = _Places(found, report)
    reader = csv.reader(places, delimiter=delimiter)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as fault:  # a field over the limit, such as after a quote that never ends, or a stray \r
            report.lose("record_too_large" if "limit" in str(fault) else "broken_record", places.take())
            reader = csv.reader(places, delimiter=delimiter)
            continue
        _add_row(row, names, places.take(), rows)
        if rows.is_full:
            yield rows.take()
    yield rows.take()


class _Places:
    """Lines for a CSV reader; remembers where the row began that it is gathering."""

    def __init__(self, found: Iterator[tuple[int, bytes]], report: Report) -> None:
        self._found = found
        self._report = report
        self._place: int | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        offset, line = next(self._found)
        if self._place is None:
            self._place = offset
        return decoded(line, self._report, offset).rstrip("\r") + "\n"

    def take(self) -> int:
        place, self._place = self._place or 0, None
        return place


def _add_row(row: list[str], names: list[str], place: int, rows: Rows) -> None:
    if not row:
        return
    if any(row[len(names) :]):  # more fields than names: which is which cannot be told
        rows.report.lose("wrong_columns", place)
        return
    rows.add_record(
        {name: value for name, value in zip(names, row, strict=False) if value or name in rows.fields.text}, place
    )


def _columns(schema: pa.Schema, rows: Rows) -> list[str]:
    """Choose the columns that are text or can be metadata; vectors and pictures stay in the file."""
    wanted = rows.fields.has_text
    heavy = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_binary, pa.types.is_map)
    return [field.name for field in schema if field.name in wanted or not any(is_kind(field.type) for is_kind in heavy)]


def _add_batch(batch: pa.RecordBatch, first: int, rows: Rows) -> None:
    """Add a batch; rows whose only text is empty are counted at once, for some files have millions."""
    names = rows.fields.text
    keep = None
    if len(names) == 1 and names[0] in batch.schema.names and not rows.fields.html:
        column = batch.column(names[0])
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            is_empty = pc.fill_null(pc.equal(pc.binary_length(column), 0), False)
            empty = int(pc.sum(is_empty).as_py() or 0)
            if empty:
                rows.report.lose("empty", first + int(pc.index(is_empty, True).as_py()), empty)
                keep = pc.invert(is_empty)
    numbers = pa.array(range(first, first + batch.num_rows), pa.int64())
    if keep is not None:
        batch, numbers = batch.filter(keep), numbers.filter(keep)
    for record, number in zip(_records(batch, rows.report, first), numbers.to_pylist(), strict=True):
        rows.add_record(record, number)


def _records(batch: pa.RecordBatch, report: Report, first: int) -> list[dict[str, object]]:
    """Turn a batch into mappings. Arrow takes any bytes for a string: what is no UTF-8 is decoded as in other files."""
    columns = []
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            columns.append([value and decoded(value, report, first) for value in column.to_pylist()])
            continue
        try:
            columns.append(column.to_pylist())
        except UnicodeDecodeError:
            raw = column.cast(pa.large_binary()).to_pylist()
            columns.append([value and decoded(value, report, first + row) for row, value in enumerate(raw)])
    return [dict(zip(batch.schema.names, values, strict=True)) for values in zip(*columns, strict=True)]


def header_line(blocks: Iterator[bytes]) -> bytes:
    """Read the first line of a file.

    Args:
        blocks: The file from its first byte.

    Returns:
        The line; what the first block has of it where it is longer.
    """
    return next(chain(blocks, [b""])).partition(b"\n")[0]
