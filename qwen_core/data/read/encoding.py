"""Bytes to text: UTF-8 first, what else fits next, and no character is ever given up without a count."""

from __future__ import annotations

from qwen_core.data.read.report import Report

_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_LOST = "\ufffd"
# A detector must see enough to be right: fewer bytes than this outside of ASCII say nothing about the encoding.
_MIN_FOREIGN_BYTES = 4


def decoded(raw: bytes, report: Report, position: int | str = "") -> str:
    """Decode bytes.

    By its mark; else UTF-8; else, where the bytes are mostly UTF-8, the broken ones are replaced (`invalid_encoding`);
    else what uchardet detects, or GB18030, where it fits without a fault (`foreign_encoding`); else replaced.

    Args:
        raw: The bytes.
        report: Gets the repairs.
        position: Where in the file, for the report.

    Returns:
        Text without lone surrogates.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return _replaced(raw, encoding, report, position)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    replaced = raw.decode(errors="replace")
    lost = replaced.count(_LOST)
    foreign = len(raw) - len(raw.translate(None, bytes(range(128, 256))))
    if foreign >= _MIN_FOREIGN_BYTES and lost * 4 > foreign:
        found = _detected(raw)
        if found is not None:
            report.repair("foreign_encoding", position)
            return found
    report.repair("invalid_encoding", position)
    return replaced


def without_surrogates(text: str, report: Report, position: int | str = "") -> str:
    """Replace lone surrogates, which JSON escapes can write and UTF-8 cannot hold.

    Args:
        text: Any string.
        report: Gets the repair `lone_surrogate`.
        position: Where in the file, for the report.

    Returns:
        Text with U+FFFD in their place; pairs are joined.
    """
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        report.repair("lone_surrogate", position)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _replaced(raw: bytes, encoding: str, report: Report, position: int | str) -> str:
    text = raw.decode(encoding, errors="replace")
    if _LOST in text:
        report.repair("invalid_encoding", position)
    return text


def _detected(raw: bytes) -> str | None:
    """Decode by the detector's answer, GB18030 next; only a decoding without a fault counts."""
    from resiliparse.parse.encoding import detect_encoding

    for encoding in (detect_encoding(raw, html5_compatible=False), "gb18030"):
        try:
            if encoding:
                return raw.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return None
