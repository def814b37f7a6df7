"""Gopher's quality rules (Rae et al., 2021, arXiv 2112.11446, table A1), for text in words.

Words are without signs. datatrove counts each sign as a word where it takes ratios to words, and Markdown's headings
as hash signs, by which documentation falls; `counts_signs` does so too. Where we depart: an asterisk or another dot
begins a bullet line as well as • and -; stop words are found in capitals too; Korean, whose words are short, is
spared the word length, and so is text of which half the words are characters of a script without spaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qwen_core.data.characters import NEWLINE, UNSPACED
from qwen_core.data.index import Index, Ints
from qwen_core.data.rules.batch import Batch, Bools, Broken
from qwen_core.data.rules.signs import ALPHA, BULLET, NO_SYMBOL

_HEADING_LEVELS = 6
_LOW_BYTE = np.uint64(0xFF)
_SHORT_WORDED = ("ko",)


def broken_rules(batch: Batch, limits: Mapping[str, Any]) -> Broken:
    """Apply the rules.

    Args:
        batch: Documents.
        limits: The recipe's section.

    Returns:
        Reasons in order, each with the documents that break it.
    """
    tokens = batch.tokens
    count = np.maximum(1, tokens.counts)
    is_word = (batch.token_bits & NO_SYMBOL) != 0
    words = tokens.sums(is_word)
    of_letters = is_word & ((batch.index.kinds[tokens.start] & UNSPACED) == 0)
    measured = tokens.sums(of_letters)
    mean_length = tokens.sums(tokens.lengths * of_letters) / np.maximum(1, measured)
    has_length = (measured * 2 > words) & ~np.isin(batch.languages, _SHORT_WORDED)
    count = count if limits["counts_signs"] else np.maximum(1, words)
    alpha = tokens.sums((batch.token_bits & ALPHA) != 0) / count
    hashes = batch.index.count(_hash_signs(batch, limits["counts_signs"])) / count
    return [
        ("too_few_words", words < limits["min_words"]),
        ("too_many_words", words > limits["max_words"]),
        ("short_words", has_length & (mean_length < limits["min_mean_word_length"])),
        ("long_words", has_length & (mean_length > limits["max_mean_word_length"])),
        ("hash_signs", hashes > limits["max_symbol_word_ratio"]),
        ("ellipses", _ellipses(batch) / count > limits["max_symbol_word_ratio"]),
        ("bullet_lines", _all_lines_ratio(batch, bullet_lines(batch)) > limits["max_bullet_line_ratio"]),
        ("ellipsis_lines", _all_lines_ratio(batch, ellipsis_lines(batch)) > limits["max_ellipsis_line_ratio"]),
        ("few_alpha_words", alpha < limits["min_alpha_word_ratio"]),
        ("few_stop_words", _lacks_stop_words(batch, limits["stop_words"], limits["min_stop_words"])),
    ]


def bullet_lines(batch: Batch) -> Bools:
    """Mark lines that begin with a bullet.

    Args:
        batch: Documents.

    Returns:
        One for each line.
    """
    return np.asarray((batch.bits[batch.lines.start] & BULLET) != 0)


def ellipsis_lines(batch: Batch) -> Bools:
    """Mark lines that end with an ellipsis.

    Args:
        batch: Documents.

    Returns:
        One for each line.
    """
    codes, end = batch.index.codes, batch.lines.end
    three = batch.lines.lengths >= 3
    for back in (1, 2, 3):
        three &= codes[np.maximum(end - back, 0)] == ord(".")
    return np.asarray(three | (codes[end - 1] == ord("…")))


def _hash_signs(batch: Batch, counts_headings: bool) -> Bools:
    """Mark # signs, by default without those that open a heading's line."""
    is_hash = batch.index.codes == ord("#")
    if not counts_headings and is_hash.any():
        starts = batch.lines.start[is_hash[batch.lines.start]]
        for _ in range(_HEADING_LEVELS):
            is_hash[starts] = False
            starts = starts[is_hash[starts + 1]] + 1
    return np.asarray(is_hash)


def _ellipses(batch: Batch) -> Ints:
    """Count ... and … in each text."""
    first = batch.index.codes[batch.tokens.start]
    stops = np.where(first == ord("."), batch.tokens.lengths // 3, 0)
    return batch.tokens.sums(stops) + batch.index.count(batch.index.codes == ord("…"))


def _all_lines_ratio(batch: Batch, marked: Bools) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Compute the share of marked lines among all, empty ones included, as datatrove does."""
    last = batch.index.offsets[1:] - 2  # the last character, if there is one
    closed = (batch.index.lengths > 0) & ((batch.index.kinds[last] & NEWLINE) != 0)
    return np.asarray(batch.lines.sums(marked) / np.maximum(1, batch.line_ends + 1 - closed))


def _lacks_stop_words(batch: Batch, lists: Mapping[str, Any], least: int) -> Bools:
    lacking = np.zeros(len(batch), bool)
    for language, words in lists.items():
        of_language = batch.languages == language
        if not of_language.any():
            continue
        index = Index(words)
        known = index.hashes(index.offsets[:-1], index.offsets[1:] - 1)
        likely = np.zeros(256, bool)
        likely[known & _LOW_BYTE] = True
        places = np.flatnonzero(likely[batch.token_hashes & _LOW_BYTE])
        hashes = batch.token_hashes[places]
        owner = np.searchsorted(batch.tokens.offsets, places, side="right") - 1
        found = np.zeros(len(batch), np.int64)
        for word in known:
            found += np.bincount(owner[hashes == word], minlength=len(batch)) > 0
        lacking |= of_language & (found < least)
    return lacking
