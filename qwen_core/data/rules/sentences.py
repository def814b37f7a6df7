"""Sentences of lines, as spaCy's sentencizer counts them: one begins at the first word behind a lone closing sign.

stretches between spaces ─▶ plain ends of sentences, enough for most documents ─▶ the rest: all words and signs
"""

from __future__ import annotations

import functools

import numpy as np

from qwen_core.data.characters import LETTER
from qwen_core.data.index import Ints
from qwen_core.data.rules.batch import Batch
from qwen_core.data.rules.signs import ENDS_SENTENCE, NO_PUNCTUATION
from qwen_core.data.rules.tokens import ABBREVIATIONS

_LONGEST = 6  # letters of an abbreviation
_BEFORE_A = ord("a") - 1
_LETTERS = 26


def further_sentences(batch: Batch) -> Ints:
    """Count the sentences of each line that begin after its first one.

    Args:
        batch: Documents.

    Returns:
        One for each line.
    """
    tokens = batch.tokens
    count = np.zeros(len(batch.lines), np.int64)
    closing = (tokens.lengths == 1) & ((batch.bits[tokens.start] & ENDS_SENTENCE) != 0)
    closed = np.cumsum(closing)
    word = np.flatnonzero(batch.token_bits & NO_PUNCTUATION)
    if len(word):
        begins = np.flatnonzero(closed[word[1:]] > closed[word[:-1]])
        before, after = (batch.line_numbers(tokens.start[word[begins + step]]) for step in (0, 1))
        np.add.at(count, after[after == before], 1)
    return count


def plain_sentences(batch: Batch) -> Ints:
    """Count those of `further_sentences` that need no look at words and signs.

    Args:
        batch: Documents.

    Returns:
        One for each line: behind a small letter and one of `.!?`, before a letter; never more than there are.
    """
    index, lines = batch.index, batch.lines
    codes, (start, end) = index.codes, index.stretches.T
    last = codes[end[:-1] - 1]
    at = np.flatnonzero((last == ord(".")) | (last == ord("!")) | (last == ord("?")))
    stop, following = end[at] - 1, start[at + 1]
    fits = (codes[stop - 1] - np.uint32(_BEFORE_A + 1) < _LETTERS) & ((index.kinds[following] & LETTER) != 0)
    at, stop, following = at[fits], stop[fits], following[fits]
    fits = (codes[stop] != ord(".")) | _is_no_abbreviation(batch, start[at], stop)
    stop, following = stop[fits], following[fits]
    line = batch.line_numbers(stop)
    return np.bincount(line[following < lines.end[line]], minlength=len(lines))


def _is_no_abbreviation(batch: Batch, start: Ints, stop: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Tell of what stands before a full stop whether it is too long for an abbreviation, or a word of letters only."""
    size, codes = stop - start, batch.index.codes
    answer = size > _LONGEST + 1  # with an opening sign
    short = np.flatnonzero((size > 1) & (size <= _LONGEST))
    start, stop = start[short], stop[short]
    plain, number = np.ones(len(short), bool), np.zeros(len(short), np.int64)
    for step in range(_LONGEST):
        inside = start + step < stop
        letter = (codes[np.minimum(start + step, stop)] | np.uint32(32)).astype(np.int64) - _BEFORE_A
        plain &= ~inside | ((letter > 0) & (letter <= _LETTERS))
        number = np.where(inside, (number << 5) + letter, number)
    answer[short] = plain & ~np.isin(number, _abbreviations())
    return answer


@functools.cache
def _abbreviations() -> Ints:
    """Number those of letters only."""
    numbers = []
    for word in ABBREVIATIONS.split():
        if word.isalpha():
            numbers.append(functools.reduce(lambda number, letter: (number << 5) + ord(letter) - _BEFORE_A, word, 0))
    return np.asarray(sorted(numbers), np.int64)
