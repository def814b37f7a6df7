"""Cutting of long documents, in time linear in their length."""

from __future__ import annotations

import re

# A sentence ends after these; after a Western mark only where space follows, or 3.5 and example.com would be cut.
_SENTENCE_END = re.compile(r"[。！？；…]+[”’」』）》\"']*|[.!?]+[\"'”’)]*(?=\s)")


def chunk(text: str, max_chars: int) -> list[str]:
    """Cut a long text at paragraph bounds; a long paragraph at line ends, else sentence ends, spaces, or anywhere.

    Args:
        text: The document, normalised: an empty line ends a paragraph.
        max_chars: Longest chunk.

    Returns:
        Chunks in order; the text itself where it is short enough.
    """
    chunks: list[str] = []
    start = 0
    while len(text) - start > max_chars:
        cut = _bound(text, start, start + max_chars)
        chunks.append(text[start:cut].rstrip("\n "))
        # Behind a line end the next line's indent stays; behind a sentence the space goes.
        space = "\n" if text[cut] == "\n" else " "
        while cut < len(text) and text[cut] == space:
            cut += 1
        start = cut
    rest = text[start:]
    return [*chunks, rest] if rest or not chunks else chunks


def _bound(text: str, start: int, stop: int) -> int:
    """Find the last paragraph's end; else, in the second half, a line end, a sentence's end or a space."""
    paragraph = text.rfind("\n\n", start + 1, stop + 2)
    if paragraph > 0:
        return paragraph
    half = (start + stop) // 2
    line = text.rfind("\n", half, stop + 1)
    if line > 0:
        return line
    ends = [found.end() for found in _SENTENCE_END.finditer(text, half, stop)]
    if ends:
        return ends[-1]
    space = text.rfind(" ", half, stop + 1)
    if space < 0:
        space = text.rfind("\n", start + 1, half)
    return space if space > 0 else stop
