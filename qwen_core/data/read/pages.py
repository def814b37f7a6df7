"""What a web server answered, as a crawler stored it: from the body's bytes to main text, title and licence."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from qwen_core.data.extract import main_text
from qwen_core.data.read.encoding import decoded
from qwen_core.data.read.fields import Rows
from qwen_core.data.read.texts import page_metadata, page_string

_HTML = ("text/html", "application/xhtml+xml")
_LOOKS_LIKE_HTML = re.compile(rb"\s*<(!doctype html|html)\b", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[^\r\n]{0,200}\r?\n")


@dataclass(frozen=True)
class Visit:
    """Where and when a crawler was: number of the record, address, time."""

    number: int
    url: str | None
    timestamp: str | None


def add_response(visit: Visit, status: int | None, headers: Mapping[str, str], body: bytes, rows: Rows) -> None:
    """Add an answer of a web server; one without success is counted as `http_status`.

    Args:
        visit: Where and when.
        status: HTTP's.
        headers: With names in lower case.
        body: As it came.
        rows: Gathers the records.
    """
    if status is not None and not 200 <= status < 300:
        rows.report.lose("http_status", visit.number)
        return
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _unchunked(body)
    body = _uncoded(body, headers.get("content-encoding", "").lower(), rows.max_bytes)
    kind = headers.get("content-type", "")
    charset = re.search(r"charset=[\"']?([\w.:-]+)", kind, re.IGNORECASE)
    add_page(visit, body, kind, charset[1] if charset else None, rows)


def add_page(visit: Visit, body: bytes, content_type: str, charset: str | None, rows: Rows) -> None:
    """Add a page or a plain text; all else is counted as `not_html`.

    Args:
        visit: Where and when.
        body: Unchunked and uncoded.
        content_type: What the server, or the crawler, called it.
        charset: What the server said.
        rows: Gathers the records.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/plain":
        rows.add(decoded(body, rows.report, visit.number), visit.number, {}, visit.url, visit.timestamp)
    elif kind not in _HTML and not (not kind and _LOOKS_LIKE_HTML.match(body)):
        rows.report.lose("not_html", visit.number)
    else:
        html = page_string(body, charset, rows, visit.number)
        rows.add(main_text(html), visit.number, page_metadata(html), visit.url, visit.timestamp)


def address(url: str | None) -> str | None:
    """Free an address from the angle brackets that some crawlers write, and from spaces.

    Args:
        url: As it was found.

    Returns:
        The address, `None` where there is none.
    """
    return url.strip().removeprefix("<").removesuffix(">").replace(" ", "%20") if url else None


def _unchunked(body: bytes) -> bytes:
    """Join the chunks of a body; one that is not chunked, whatever its header says, is given back as it is."""
    parts, place = [], 0
    while chunk := _CHUNK.match(body, place):
        size = int(chunk[1], 16)
        parts.append(body[chunk.end() : chunk.end() + size])
        place = chunk.end() + size
        place += 2 if body[place : place + 2] == b"\r\n" else 1 if body[place : place + 1] == b"\n" else 0
        if not size:
            return b"".join(parts)
    # No last chunk: what was joined counts only if it is (nearly) all, as in a body that was cut off.
    return b"".join(parts) if place >= len(body) and parts else body


def _uncoded(body: bytes, coding: str, max_bytes: int) -> bytes:
    """Undo a body's content encoding where it has one; crawlers store bodies that were undone already."""
    try:
        if "gzip" in coding and body.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(31).decompress(body, max_bytes)
        if "deflate" in coding:
            return zlib.decompressobj(15 if body[:1] == b"\x78" else -15).decompress(body, max_bytes)
        if "br" in coding:
            from fastwarc.stream_io import BrotliReader

            return bytes(BrotliReader(io.BytesIO(body)).read(max_bytes))
    except (zlib.error, OSError, ValueError):
        return body
    return body
