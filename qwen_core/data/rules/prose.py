"""What of a document is prose: rules for prose pass over its code, tables, tags and rulers.

Technical text is full of lines that repeat, hold no sentence and end in no sign: a fence, a bracket, `</div>`.
Counted as prose they drop most documentation; left out, the rules say about the text around them what they say of any
text.

lines ─▶ fenced code (Markdown, AsciiDoc), literal blocks (reStructuredText), front matter, tables, lines of one tag,
lines without letter or digit ─▶ passed over
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qwen_core.data.characters import DIGIT, LETTER, UNSPACED
from qwen_core.data.index import Index, Ints

Bools = npt.NDArray[np.bool_]
_FRONT_MATTER_LINES = 60


@dataclass(frozen=True)
class Source:
    """Whole documents behind a batch of their prose.

    Attributes:
        texts: The whole documents.
        index: Of them.
        line_numbers: Line of the whole documents that each line of prose is.
    """

    texts: Sequence[str]
    index: Index
    line_numbers: Ints


def is_structure(index: Index) -> Bools:
    """Mark lines that are no prose.

    Args:
        index: Documents.

    Returns:
        One for each line.
    """
    lines = index.lines
    if not len(lines):
        return np.zeros(0, bool)
    first, last = index.codes[lines.start], index.codes[lines.end - 1]
    inside = np.bitwise_or.reduceat(index.kinds, lines.start)
    marked = (inside & (LETTER | DIGIT | UNSPACED)) == 0
    marked |= (first == ord("<")) & (last == ord(">"))
    marked |= (first == ord("|")) & (last == ord("|"))
    marked |= (first == ord("[")) & (last == ord("]"))  # [source,console], [[anchor]]
    marked |= (first == ord(":")) & ((last == ord(":")) | (last == ord("`")))  # :width:`700px`
    marked |= _between_pairs(index, _is_fence(index, first, last))
    marked |= _between_pairs(index, _is_line(index, "----") & _in_asciidoc(index))
    marked |= _literal_blocks(index, last)
    return np.asarray(marked | _front_matter(index))


def whole_lines(index: Index, lines: Bools) -> Ints:
    """Find lines with their indentation and their line end.

    Args:
        index: Documents.
        lines: Which ones, one for each line.

    Returns:
        [R, 2].
    """
    breaks = index.breaks
    behind = np.searchsorted(breaks, index.lines.start[lines])
    return np.stack((np.where(behind > 0, breaks[behind - 1] + 1, 0), breaks[behind] + 1), axis=1)


def _is_fence(index: Index, first: npt.NDArray[np.uint32], last: npt.NDArray[np.uint32]) -> Bools:
    """Mark ``` and ~~~; not `` ```code``` `` of one line."""
    lines = index.lines
    fence = ((first == ord("`")) | (first == ord("~"))) & (lines.lengths >= 3)
    for step in (1, 2):
        fence &= index.codes[np.minimum(lines.start + step, len(index.codes) - 1)] == first
    return np.asarray(fence & ((last != ord("`")) | (lines.lengths <= 4)))


@functools.cache
def hash_of(line: str) -> np.uint64:
    """Hash a constant as an index hashes it, once for each process.

    Args:
        line: Any text.

    Returns:
        Its hash.
    """
    index = Index([line])
    return np.uint64(index.hashes(index.offsets[:1], index.offsets[1:] - 1)[0])


def _is_line(index: Index, text: str) -> Bools:
    """Mark lines that are exactly this."""
    lines = index.lines
    marked = (lines.lengths == len(text)) & (index.codes[lines.start] == ord(text[0]))
    found = np.flatnonzero(marked)
    marked[found] = index.hashes(lines.start[found], lines.end[found]) == hash_of(text)
    return np.asarray(marked)


def _in_asciidoc(index: Index) -> Bools:
    """Mark lines of documents that have a [source] line."""
    lines, prefix = index.lines, "[source"
    found = np.flatnonzero((index.codes[lines.start] == ord("[")) & (lines.lengths > len(prefix)))
    start = lines.start[found]
    owner = lines.owner
    documents = np.zeros(len(index), bool)
    documents[owner[found[index.hashes(start, start + len(prefix)) == hash_of(prefix)]]] = True
    return np.asarray(documents[owner])


def _between_pairs(index: Index, marks: Bools) -> Bools:
    """Mark lines from each first to each second mark of a document; a last one without partner marks nothing."""
    places = np.flatnonzero(marks)
    depth = np.zeros(len(marks) + 1, np.int64)
    if len(places):
        owner = index.lines.owner[places]
        rank = np.arange(len(places)) - np.searchsorted(owner, owner)
        has_partner = rank < (np.searchsorted(owner, owner, side="right") - np.searchsorted(owner, owner)) // 2 * 2
        depth[places[has_partner & (rank % 2 == 0)]] += 1
        depth[places[has_partner & (rank % 2 == 1)] + 1] -= 1
    return np.asarray(np.cumsum(depth)[:-1] > 0)


def _literal_blocks(index: Index, last: npt.NDArray[np.uint32]) -> Bools:
    """Mark what stands further in below a line that ends in :: or begins with .. code."""
    lines, codes = index.lines, index.codes
    marker = (last == ord(":")) & (codes[np.maximum(lines.end - 2, 0)] == ord(":"))
    marker |= (codes[lines.start] == ord(".")) & (
        index.hashes(lines.start, np.minimum(lines.start + 7, lines.end)) == hash_of(".. code")
    )
    if not marker.any():
        return np.asarray(marker)
    begin = whole_lines(index, np.ones(len(lines), bool))[:, 0]
    indent = lines.start - begin
    number = np.arange(len(lines))
    above = np.maximum.accumulate(np.where(marker, number, -1))
    above = np.concatenate(([-1], above[:-1]))  # the last marker before each line
    owner = lines.owner
    is_below = (above >= 0) & (owner[above] == owner) & (indent > indent[above])
    outside = np.maximum.accumulate(np.where(is_below, -1, number))
    return np.asarray(is_below & (outside <= above))


def _front_matter(index: Index) -> Bools:
    """Mark the lines between --- and --- at a document's top."""
    lines = index.lines
    ruler = _is_line(index, "---")
    filled = np.flatnonzero(lines.counts)
    opening = lines.offsets[filled]
    opening = opening[ruler[opening]]
    marked = np.zeros(len(lines) + 1, np.int64)
    places = np.flatnonzero(ruler)
    if len(opening):
        closing = places[np.minimum(np.searchsorted(places, opening) + 1, len(places) - 1)]
        owner = lines.owner
        fits = (closing > opening) & (owner[closing] == owner[opening]) & (closing - opening <= _FRONT_MATTER_LINES)
        marked[opening[fits]] += 1
        marked[closing[fits] + 1] -= 1
    return np.asarray(np.cumsum(marked)[:-1] > 0)
