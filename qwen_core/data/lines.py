"""Lines or paragraphs that many documents repeat (menus, notices, licences): found by hash, cut from all but the first.

    texts ─▶ find_lines ─▶ (hash, document) ─▶ over all documents: repeated_lines ─▶ texts ─▶ without_lines

A line's hash is that of its words and signs in their order, so that white space and case do not matter. What counts is
in how many documents a line stands, not how often (C4 does the latter with runs of three sentences: Raffel et al.,
2020, section 2.2); the document that comes first keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from qwen_core.data.characters import NEWLINE, UInt64s
from qwen_core.data.index import BATCH_CHARS, Index, Ints, Spans, batches, run_hashes

Unit = Literal["line", "paragraph"]

_BREAK = {"line": "\n", "paragraph": "\n\n"}


@dataclass(frozen=True)
class Lines:
    """Lines or paragraphs of some texts.

    Attributes:
        hashes: Of what each says, [L].
        text: Number of the text, [L], rising.
        start: First character in the text, [L].
        end: Behind the line and its line end, of a paragraph with the empty lines below, [L].
    """

    hashes: UInt64s
    text: Ints
    start: Ints
    end: Ints


def find_lines(texts: Sequence[str], unit: Unit, min_chars: int) -> Lines:
    """Find and hash lines or paragraphs; one that is longer than a batch of the index is passed over.

    Args:
        texts: Of any number and length.
        unit: A paragraph ends at an empty line.
        min_chars: Shorter ones are passed over, in characters.

    Returns:
        The lines, in their order.
    """
    found = [_lines_of(index, unit, min_chars, text, origin) for text, origin, index in _indexed(texts, unit)]
    none = np.zeros(0, np.int64)
    found.append(Lines(none.astype(np.uint64), none, none, none))
    columns = ("hashes", "text", "start", "end")
    return Lines(*(np.concatenate([getattr(lines, name) for lines in found]) for name in columns))


def line_hashes(index: Index, unit: Unit, min_chars: int) -> tuple[UInt64s, Spans]:
    """Hash lines or paragraphs of an index.

    Args:
        index: Of texts.
        unit: A paragraph ends at an empty line.
        min_chars: Shorter ones are passed over, in characters without the space around them.

    Returns:
        Hashes [L], and where the lines stand [L].
    """
    spans = index.lines if unit == "line" else _paragraphs(index)
    long = spans.lengths >= min_chars
    spans = index.spans(spans.start[long], spans.end[long])
    tokens = index.tokens.start
    hashes = run_hashes(index.token_hashes, np.searchsorted(tokens, spans.start), np.searchsorted(tokens, spans.end))
    return hashes, spans


def repeated_lines(hashes: UInt64s, numbers: Ints, min_documents: int) -> tuple[UInt64s, Ints]:
    """Find lines that stand in many documents.

    Args:
        hashes: Of lines, in any order; all lines with one hash must be there, [L].
        numbers: Document of each, smaller for one that comes first, [L].
        min_documents: In so many documents a line must stand.

    Returns:
        Hashes of such lines, rising [R], and the document that keeps each [R].
    """
    order = np.lexsort((numbers, hashes))
    hashes, numbers = hashes[order], numbers[order]
    new = np.ones(len(hashes), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (numbers[1:] != numbers[:-1])
    found, first, counts = np.unique(hashes[new], return_index=True, return_counts=True)
    many = counts >= min_documents
    return found[many], numbers[new][first[many]]


def without_lines(
    texts: Sequence[str],
    numbers: Ints,
    repeated: tuple[UInt64s, Ints],
    unit: Unit,
    min_chars: int,
) -> tuple[list[str], Ints]:
    """Cut repeated lines from all texts but the ones that keep them.

    Args:
        texts: Of any number and length.
        numbers: Of their documents, as `repeated_lines` was told, [N].
        repeated: What it returned; of many calls, joined and sorted by hash.
        unit: As the lines were found.
        min_chars: As the lines were found.

    Returns:
        The texts, and the characters cut from each [N].
    """
    lines = find_lines(texts, unit, min_chars)
    hashes, first = repeated
    place = np.minimum(np.searchsorted(hashes, lines.hashes), max(0, len(hashes) - 1))
    is_cut = np.zeros(len(lines.hashes), bool)
    if len(hashes):
        is_cut = (hashes[place] == lines.hashes) & (first[place] != numbers[lines.text])
    kept = list(texts)
    cut = np.bincount(lines.text[is_cut], (lines.end - lines.start)[is_cut], minlength=len(texts)).astype(np.int64)
    bounds = np.searchsorted(lines.text[is_cut], np.arange(len(texts) + 1))
    start, end = lines.start[is_cut], lines.end[is_cut]
    for text in np.flatnonzero(cut).tolist():
        chosen = slice(bounds[text], bounds[text + 1])
        kept[text] = _without(texts[text], start[chosen].tolist(), end[chosen].tolist())
    return kept, cut


def _indexed(texts: Sequence[str], unit: Unit) -> Iterator[tuple[Ints, Ints, Index]]:
    """Index texts in batches, long ones in pieces; tell for each piece its text and where in it the piece begins."""
    pieces, text, origin = [], [], []
    for number, whole in enumerate(texts):
        for start, end in _pieces(whole, _BREAK[unit]):
            pieces.append(whole if end - start == len(whole) else whole[start:end])
            text.append(number)
            origin.append(start)
    numbers, origins = np.array(text, np.int64), np.array(origin, np.int64)
    for part, index in batches(pieces):
        yield numbers[part], origins[part], index


def _pieces(text: str, line_break: str) -> Iterator[tuple[int, int]]:
    """Cut a long text at line breaks; leave out what has none for the length of a batch."""
    start = 0
    while len(text) - start > BATCH_CHARS:
        end = text.rfind(line_break, start, start + BATCH_CHARS) + len(line_break)
        if end < start + len(line_break):
            found = text.find(line_break, start + BATCH_CHARS)
            start = len(text) if found < 0 else found + len(line_break)
            continue
        yield start, end
        start = end
    if start < len(text):
        yield start, len(text)


def _lines_of(index: Index, unit: Unit, min_chars: int, text: Ints, origin: Ints) -> Lines:
    """Find the lines of one batch, and what would be cut with each."""
    hashes, spans = line_hashes(index, unit, min_chars)
    breaks = np.flatnonzero(_breaks(index))
    before = np.concatenate((np.zeros(1, np.int64), breaks + 1))
    start = before[np.searchsorted(breaks, spans.start)]
    if unit == "line":
        end = breaks[np.searchsorted(breaks, spans.end)] + 1
    else:  # up to the next line that is not empty, or the end
        visible = np.append(index.lines.start, len(index.codes))
        end = before[np.searchsorted(breaks, visible[np.searchsorted(visible, spans.end)])]
    owner = spans.owner
    first, last = index.offsets[owner], index.offsets[owner + 1] - 1
    base = origin[owner] - first
    return Lines(hashes, text[owner], np.maximum(start, first) + base, np.minimum(end, last) + base)


def _breaks(index: Index) -> npt.NDArray[np.bool_]:
    """Mark line ends; a carriage return and a line feed are one."""
    marked: npt.NDArray[np.bool_] = (index.kinds & NEWLINE) != 0
    marked[:-1] &= (index.codes[:-1] != ord("\r")) | (index.codes[1:] != ord("\n"))
    return marked


def _paragraphs(index: Index) -> Spans:
    """Join lines that no empty line parts."""
    lines = index.lines
    if not len(lines):
        return lines
    ends = np.cumsum(_breaks(index))
    begins = np.ones(len(lines), bool)
    begins[1:] = ends[lines.start[1:]] - ends[lines.end[:-1] - 1] > 1
    begins[lines.offsets[:-1][lines.counts > 0]] = True
    first = np.flatnonzero(begins)
    return index.spans(lines.start[first], lines.end[np.append(first[1:], len(lines)) - 1])


def _without(text: str, start: list[int], end: list[int]) -> str:
    """Cut stretches from a text."""
    kept = [text[a:b] for a, b in zip([0, *end], [*start, len(text)], strict=True)]
    return "".join(kept).strip("\r\n")
