"""Readers: one file of any known format in, raw records out; what is broken is counted, the rest goes on.

.jsonl .json (also .gz .zst)   .parquet   .txt .md .rst .adoc   source code   .warc .wet (also .gz)
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

PROSE = frozenset({".txt", ".md", ".markdown", ".rst", ".adoc"})
CODE = frozenset(
    [
        ".py",
        ".pyi",
        ".js",
        ".jsx",
        ".ts",
        ".tsx",
        ".rs",
        ".go",
        ".c",
        ".h",
        ".cc",
        ".cpp",
        ".hpp",
        ".cu",
        ".java",
        ".kt",
        ".scala",
        ".rb",
        ".php",
        ".sh",
        ".sql",
        ".r",
        ".jl",
        ".lua",
        ".swift",
        ".toml",
        ".yaml",
        ".yml",
        ".css",
    ]
)
_RECORDS = frozenset({".jsonl", ".ndjson", ".json"})
_WEB = frozenset({".warc", ".wet", ".arc"})
_PACKED = frozenset({".gz", ".zst"})
_URL_KEYS = ("url", "uri", "link")
_TIME_KEYS = ("timestamp", "date", "created_at")


@dataclass
class Raw:
    """A record as it was found.

    Attributes:
        position: Where in the file, such as a line's number.
        is_code: Whether the file is source code.
        extra: Further fields, for the document's metadata.
    """

    text: str
    position: str
    url: str | None = None
    timestamp: str | None = None
    is_code: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


def kind_of(path: Path) -> str | None:
    """Tell by its name what a file holds.

    Args:
        path: The file.

    Returns:
        `records`, `parquet`, `web`, `prose`, `code`, or `None` for what is not read.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    kinds = {"records": _RECORDS, "parquet": {".parquet"}, "web": _WEB, "prose": PROSE, "code": CODE}
    return next((kind for kind, endings in kinds.items() if last in endings), None)


def read_file(path: Path, text_column: str, drops: Counter[str]) -> Iterator[Raw]:
    """Read a file's records.

    Args:
        path: Of a kind that `kind_of` knows.
        text_column: Key or column that holds the text.
        drops: Gets the reasons: `unreadable_file`, `truncated_file`, `invalid_json`, `missing_text`,
            `missing_text_column`, `invalid_encoding`, `broken_record`.

    Yields:
        Records, in the file's order.
    """
    kind = kind_of(path)
    try:
        if not path.stat().st_size:
            drops["empty_file"] += 1
            return
        if kind == "parquet":
            yield from _parquet(path, text_column, drops)
        elif kind == "records":
            yield from _records(path, text_column, drops)
        elif kind == "web":
            yield from _web(path, drops)
        else:
            yield Raw(_decoded(b"".join(_blocks(path, drops)), drops), "0", is_code=kind == "code")
    except (OSError, pa.ArrowException):
        drops["unreadable_file"] += 1


def _blocks(path: Path, drops: Counter[str]) -> Iterator[bytes]:
    """Read a file's bytes, unpacked; a truncated archive gives what can be had of it."""
    opened: Any
    with path.open("rb") as file:
        if path.suffix == ".gz":
            opened = gzip.GzipFile(fileobj=file)
        elif path.suffix == ".zst":
            opened = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        else:
            opened = file
        while True:
            try:
                # read1 hands over what was unpacked before the fault; read would throw it away
                block = opened.read1(1 << 20) if isinstance(opened, gzip.GzipFile) else opened.read(1 << 20)
            except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError):
                drops["truncated_file"] += 1
                return
            if not block:
                return
            yield block


def _lines(path: Path, drops: Counter[str]) -> Iterator[bytes]:
    rest = b""
    for block in _blocks(path, drops):
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _decoded(raw: bytes, drops: Counter[str]) -> str:
    """Decode UTF-8 (with or without mark), UTF-16 by its mark, GB18030 where it fits; else replace and count."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", errors="replace")
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    drops["invalid_encoding"] += 1
    return raw.decode("utf-8", errors="replace")


def _records(path: Path, text_column: str, drops: Counter[str]) -> Iterator[Raw]:
    for number, line in enumerate(_lines(path, drops)):
        if not line.strip():
            continue
        try:
            record = json.loads(_decoded(line, drops))
        except json.JSONDecodeError:
            drops["invalid_json"] += 1
            continue
        found = _from_record(record, text_column, str(number)) if isinstance(record, dict) else None
        if found is None:
            drops["missing_text"] += 1
        else:
            yield found


def _from_record(record: dict[str, Any], text_column: str, position: str) -> Raw | None:
    text = record.get(text_column)
    if not isinstance(text, str):
        return None
    url = next((str(record[key]) for key in _URL_KEYS if record.get(key)), None)
    timestamp = next((str(record[key]) for key in _TIME_KEYS if record.get(key)), None)
    told = {text_column, *_URL_KEYS, *_TIME_KEYS}
    extra = {key: value for key, value in record.items() if key not in told and isinstance(value, (str, int, float))}
    return Raw(text, position, url, timestamp, extra=extra)


def _parquet(path: Path, text_column: str, drops: Counter[str]) -> Iterator[Raw]:
    with pq.ParquetFile(path) as file:
        if text_column not in file.schema_arrow.names:
            drops["missing_text_column"] += 1
            return
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for record in batch.to_pylist():
                found = _from_record(record, text_column, str(number))
                number += 1
                if found is None:
                    drops["missing_text"] += 1
                else:
                    yield found


def _web(path: Path, drops: Counter[str]) -> Iterator[Raw]:
    """Read a crawl file: text records (WET) as they are, pages (WARC) by their main content."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    stream = io.BytesIO(b"".join(_blocks(path, drops)))
    wanted = WarcRecordType.response | WarcRecordType.conversion
    try:
        for number, record in enumerate(ArchiveIterator(stream, record_types=wanted)):
            text = _page_text(record, drops)
            if text is not None:
                yield Raw(
                    text,
                    str(number),
                    url=record.headers.get("WARC-Target-URI"),
                    timestamp=record.headers.get("WARC-Date"),
                )
    except Exception:  # the parser's own errors have no common base; the records before the fault are kept
        drops["broken_record"] += 1


def _page_text(record: Any, drops: Counter[str]) -> str | None:
    from fastwarc.warc import WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    body = record.reader.read()
    if record.record_type == WarcRecordType.conversion:
        return _decoded(body, drops)
    kind = (record.http_content_type or "").lower()
    if "html" not in kind:
        drops["not_html"] += 1
        return None
    html = bytes_to_str(body, record.http_charset or detect_encoding(body) or "utf-8")
    return str(extract_plain_text(html, main_content=True, alt_texts=False, links=False))
