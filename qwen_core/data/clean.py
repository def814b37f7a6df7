"""Cleaning of text and cutting of long documents; what a character is stays, what is noise goes."""

from __future__ import annotations

import re
import unicodedata

import pyarrow as pa
import pyarrow.compute as pc

# C0 and C1 controls but tab and line end; zero-width and direction marks; the mark of a replaced byte stays, as
# evidence for the filters.
_CONTROLS = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}\x{200b}-\x{200f}\x{202a}-\x{202e}\x{2060}\x{feff}]"
_PARAGRAPH = re.compile(r"\n\s*\n")


def normalise(text: pa.Array) -> pa.Array:
    """Normalise texts: line ends, NFC, no control characters, at most one empty line in a row, no outer space.

    Args:
        text: Strings.

    Returns:
        Strings, as many.
    """
    text = pc.replace_substring_regex(text, pattern=r"\r\n?|\x{2028}|\x{2029}|\x{85}", replacement="\n")
    text = pc.replace_substring_regex(text, pattern=_CONTROLS, replacement="")
    # unicodedata, for pyarrow 25.0.1's utf8_normalize hands every text back as it came
    text = pa.array([unicodedata.normalize("NFC", value) for value in text.to_pylist()], pa.string())
    text = pc.replace_substring_regex(text, pattern=r"[ \t]+\n", replacement="\n")
    text = pc.replace_substring_regex(text, pattern=r"\n{3,}", replacement="\n\n")
    return pc.utf8_trim(text, characters="\n \t\u3000")


def chunk(text: str, max_chars: int) -> list[str]:
    """Cut a long text at paragraph bounds, a long paragraph at line ends, a long line anywhere.

    Args:
        text: The document.
        max_chars: Longest chunk.

    Returns:
        Chunks in order; the text itself where it is short enough.
    """
    if len(text) <= max_chars:
        return [text]
    chunks, current = [], ""
    for piece in _pieces(text, max_chars):
        if current and len(current) + len(piece) + 2 > max_chars:
            chunks.append(current)
            current = piece
        else:
            current = f"{current}\n\n{piece}" if current else piece
    return [*chunks, current] if current else chunks


def _pieces(text: str, max_chars: int) -> list[str]:
    """Split into paragraphs, and those that are too long further."""
    pieces = []
    for paragraph in _PARAGRAPH.split(text):
        rest = paragraph
        while len(rest) > max_chars:
            cut = rest.rfind("\n", 1, max_chars)
            cut = cut if cut > 0 else max_chars
            pieces.append(rest[:cut])
            rest = rest[cut:].lstrip("\n")
        if rest.strip():
            pieces.append(rest)
    return pieces
