"""FineWeb's rules (Penedo et al., 2024, arXiv 2406.17557, section 3.6), on the lines that C4's rules left.

Where we depart from datatrove: lines are judged without the space around them, and line ends are counted between
filled lines, as they are after C4's editing. By default a line that was wrapped at a column is neither asked how it
ends nor counted as repeated, nor is a heading, and a document of one or two lines is not asked how they end; quotes
behind a sign are passed over, for speech ends in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qwen_core.data.index import Ints
from qwen_core.data.rules.batch import Batch, Bools, Broken
from qwen_core.data.rules.edits import Edits
from qwen_core.data.rules.repeats import seen_before
from qwen_core.data.rules.signs import ENDS_LINE, QUOTE


def broken_rules(batch: Batch, limits: Mapping[str, Any], edits: Edits) -> Broken:
    """Apply the rules.

    Args:
        batch: Documents.
        limits: The recipe's section.
        edits: Lines taken out before.

    Returns:
        Reasons in order, each with the documents that break it.
    """
    lines, kept = batch.lines, edits.kept
    lengths = edits.end - lines.start
    ends_well = _ends_well(batch, edits.end, limits["passes_over_quotes"])
    total = lines.sums(kept)
    closing = counted = kept
    if limits["joins_wrapped_lines"]:
        closing = kept & ~(batch.wrapped | _is_heading(batch))
        counted = closing.copy()
        counted[1:] &= ~batch.wrapped[:-1]
    well_ended = batch.line_ratio(ends_well, closing)
    seen = np.zeros(len(lines), bool)
    start, end = lines.start[kept], edits.end[kept]
    seen[kept] = seen_before(batch.cased(batch.index.hashes(start, end), start, end), lines.owner[kept])
    duplicate = lines.sums(lengths * (seen & counted)) / np.maximum(1, lines.sums(lengths * kept))
    newlines = np.maximum(0, total - 1)
    short = batch.line_ratio(lengths <= limits["short_line_characters"], kept)
    return [
        ("no_lines", total == 0),
        (
            "few_line_ends",
            (lines.sums(closing) >= limits["min_lines"]) & (well_ended < limits["min_line_punctuation_ratio"]),
        ),
        ("short_lines", short > limits["max_short_line_ratio"]),
        ("repeated_line_characters", duplicate > limits["max_duplicate_line_character_ratio"]),
        ("newlines", _exceeds(batch, newlines, kept, limits["max_newline_word_ratio"])),
    ]


def _ends_well(batch: Batch, end: Ints, passes_over_quotes: bool) -> Bools:
    last = batch.bits[end - 1]
    ends = (last & ENDS_LINE) != 0
    if passes_over_quotes:
        before = batch.bits[np.maximum(end - 2, 0)]
        closing = ((last & QUOTE) != 0) | (batch.index.codes[end - 1] == ord(")"))
        ends |= closing & ((before & ENDS_LINE) != 0)
    return np.asarray(ends)


def _exceeds(batch: Batch, newlines: Ints, kept: Bools, limit: float) -> Bools:
    """Tell who has too many line ends to words; tokens, which are no fewer than words between spaces, settle it."""
    lines = batch.lines
    words, _ = batch.line_words
    unclear = newlines > limit * lines.sums(words * kept)
    if not unclear.any():
        return unclear
    part, chosen = batch.focus(unclear)
    tokens = np.zeros(len(lines), np.int64)
    begin, end = (np.searchsorted(part.tokens.start, edge) for edge in (part.lines.start, part.lines.end))
    tokens[chosen] = end - begin
    return np.asarray(unclear & (newlines > limit * lines.sums(tokens * kept)))


def _is_heading(batch: Batch) -> Bools:
    """Mark headings of Markdown and AsciiDoc."""
    first = batch.index.codes[batch.lines.start]
    return np.asarray((first == ord("#")) | (first == ord("=")))
