"""C4's rules (Raffel et al., 2020, arXiv 1910.10683, section 2.2), for text in words.

lines ─▶ without citations ─▶ lines that end in a sign, hold enough words, speak of no cookies ─▶ sentences left

What stays is judged: too few sentences, filler text, curly brackets. Policy phrases and the longest word are of C4's
published code. Where we depart: the ends of lines include typographic quotes and 。！？; what stays keeps its empty
lines and its indentation, so that paragraphs and examples stay readable; a line in a script without spaces is not
short of words, nor is the end of a sentence that was wrapped at a column. Our defaults keep lines without a closing
sign, as FineWeb did, and prose that holds code or speaks of JavaScript; docs/data.md tells how to have C4's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qwen_core.data.characters import DIGIT, NEWLINE, SIGN, SPACE, WORD
from qwen_core.data.index import Ints
from qwen_core.data.rules.batch import Batch, Bools, Broken
from qwen_core.data.rules.edits import Edits
from qwen_core.data.rules.phrases import spelled
from qwen_core.data.rules.sentences import further_sentences, most_further_sentences
from qwen_core.data.rules.tokens import ranges

_CITATION_WORDS, _CITATION_DIGITS = ("edit", "citation needed"), 4
_CITATION_LENGTH = 1 + max(map(len, _CITATION_WORDS))
_BEFORE_LINK, _BEHIND_LINK = tuple(map(ord, "`[(")), tuple(map(ord, ":(`[]"))
_MENU = 3
_ENDS = tuple(map(ord, ".?!\"'”’」』。！？"))


def edit_lines(batch: Batch, limits: Mapping[str, Any]) -> tuple[Edits, Bools, Bools]:
    """Take lines out.

    Args:
        batch: Documents.
        limits: The recipe's section.

    Returns:
        The edits, the lines with filler text, and those that may hold no curly bracket.
    """
    edits = Edits.none(batch)
    words, longest = batch.line_words
    edits.remove("long_word", longest > limits["max_word_length"])
    if limits["removes_citations"]:
        _take_out_citations(batch, edits)
    if limits["needs_terminal_punctuation"]:
        joined = batch.wrapped if limits["joins_wrapped_lines"] else False
        edits.remove("no_terminal_punctuation", ~(_ends_well(batch, edits.end) | joined))
    few = words < limits["min_words_per_line"]
    if limits["joins_wrapped_lines"]:
        few[1:] &= ~batch.wrapped[:-1]  # the end of a sentence
    if limits["removes_menus_only"]:
        few &= _in_menu(batch, few)
    edits.remove("few_words", few)
    asked = edits.kept.copy()
    lists = [limits[f"{name}_phrases"] for name in ("javascript", "policy", "filler")]
    javascript, policy, filler = batch.lines_with(*lists)
    edits.remove("javascript", javascript)
    edits.remove("policy", policy)
    return edits, asked & filler, asked & ~javascript


def broken_rules(batch: Batch, limits: Mapping[str, Any], edits: Edits, filler: Bools, no_brackets: Bools) -> Broken:
    """Judge what is left.

    Args:
        batch: Documents.
        limits: The recipe's section.
        edits: What was taken out.
        filler: Lines with filler text.
        no_brackets: Lines that may hold no curly bracket.

    Returns:
        Reasons in order, each with the documents that break it.
    """
    lines = batch.lines
    broken: Broken = [("filler_text", lines.sums(filler) > 0)]
    if limits["drops_curly_brackets"]:
        marked = np.zeros(len(lines), bool)
        marked[batch.line_numbers(np.flatnonzero(batch.index.codes == ord("{")))] = True
        broken.append(("curly_bracket", lines.sums(no_brackets & marked) > 0))
    sentences = lines.sums(edits.kept)
    unclear = sentences < limits["min_sentences"]  # even if each line is one sentence
    for _, mask in broken:
        unclear &= ~mask
    few = sentences < limits["min_sentences"]
    few[unclear] &= _has_few_sentences(batch, edits.kept, unclear, limits["min_sentences"] - sentences)[unclear]
    return [*broken, ("too_few_sentences", few)]


def _has_few_sentences(batch: Batch, kept: Bools, unclear: Bools, missing: Ints) -> Bools:
    """Tell which documents lack sentences, counting those that begin within lines."""
    if not unclear.any():
        return unclear
    few = unclear.copy()
    unclear = unclear & (batch.lines.sums(most_further_sentences(batch) * kept) >= missing)
    if unclear.any():
        part, chosen = batch.focus(unclear)
        further = np.zeros(len(batch.lines), np.int64)
        further[chosen] = further_sentences(part)
        few &= batch.lines.sums(further * kept) < missing
    return few


def _in_menu(batch: Batch, few: Bools) -> Bools:
    """Mark short lines that stand among others, begin at the margin and hold no sign."""
    index, lines = batch.index, batch.lines
    if not few.any():
        return few
    plain = few & (np.bitwise_or.reduceat(index.kinds & SIGN, lines.start) == 0)
    plain &= (lines.start == 0) | ((index.kinds[lines.start - 1] & NEWLINE) != 0)
    menu, owner = np.zeros(len(lines), bool), lines.owner
    for shift in range(_MENU):  # a window of so many lines, wherever the line stands in it
        window = np.ones(max(0, len(lines) - _MENU + 1), bool)
        for step in range(_MENU):
            window &= plain[step : step + len(window)]
        window &= owner[_MENU - 1 :] == owner[: len(window)]
        menu[shift : shift + len(window)] |= window
    return menu


def _take_out_citations(batch: Batch, edits: Edits) -> None:
    edits.cited = _citations(batch)
    if not len(edits.cited):
        return
    stays = (batch.index.kinds & SPACE) == 0
    stays[ranges(edits.cited)] = False
    touched = np.unique(batch.line_numbers(edits.cited[:, 0]))
    left = np.flatnonzero(stays)
    last = left[np.maximum(np.searchsorted(left, batch.lines.end[touched]) - 1, 0)] if len(left) else touched
    edits.end[touched] = np.maximum(last + 1, batch.lines.start[touched] + 1)


def _citations(batch: Batch) -> Ints:
    """Find [1], [edit] and [citation needed] behind a word or sign; not `x[1]`, [0], or the label of a link, [R, 2]."""
    index, codes = batch.index, batch.index.codes
    opening = np.flatnonzero(codes[:-1] == ord("["))
    closing = np.flatnonzero(codes == ord("]"))
    if not len(opening) or not len(closing):
        return np.zeros((0, 2), np.int64)
    end = closing[np.minimum(np.searchsorted(closing, opening), len(closing) - 1)]
    near = (opening > 0) & (end > opening) & (end - opening <= _CITATION_LENGTH)
    opening, end = opening[near], end[near]
    length = end - opening - 1
    found = (length >= 1) & (length <= _CITATION_DIGITS) & (codes[opening + 1] != ord("0"))
    for step in range(_CITATION_DIGITS):
        inside = np.minimum(opening + 1 + step, len(codes) - 1)
        found &= (step >= length) | ((index.kinds[inside] & DIGIT) != 0)
    for word in _CITATION_WORDS:
        same = np.flatnonzero(length == len(word))
        begin = spelled(codes, opening[same] + 1, tuple(map(ord, word)))
        found[np.searchsorted(opening, begin - 1)] = True
    opening, end = opening[found], end[found]
    before, after = opening - 1, np.minimum(end + 1, len(codes) - 1)
    free = ((index.kinds[before] & SPACE) == 0) & ~np.isin(codes[before], _BEFORE_LINK)
    free &= ((index.kinds[after] & WORD) == 0) & ~np.isin(codes[after], _BEHIND_LINK)
    return np.stack((opening[free], end[free] + 1), axis=1)


def _ends_well(batch: Batch, end: Ints) -> Bools:
    """Tell which lines end in a closing sign that is no ellipsis."""
    codes = batch.index.codes
    dots = end - batch.lines.start >= 3
    for back in (1, 2, 3):
        dots &= codes[np.maximum(end - back, 0)] == ord(".")
    return np.asarray(np.isin(codes[end - 1], _ENDS) & ~dots)
