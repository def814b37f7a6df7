"""Sentences of lines, as spaCy's sentencizer counts them: one begins at the first word behind a lone closing sign.

closing signs of each line ─▶ too few in most documents that are short of sentences ─▶ the others: words and signs
"""

from __future__ import annotations

import numpy as np

from qwen_core.data.index import Ints
from qwen_core.data.rules.batch import Batch
from qwen_core.data.rules.signs import ENDS_SENTENCE, NO_PUNCTUATION


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


def most_further_sentences(batch: Batch) -> Ints:
    """Count the closing signs within each line, without cutting it into words.

    Args:
        batch: Documents.

    Returns:
        One for each line, as many as `further_sentences` at least.
    """
    signs = np.flatnonzero((batch.bits & ENDS_SENTENCE) != 0)
    line = batch.line_numbers(signs)
    return np.bincount(line[signs + 1 < batch.lines.end[line]], minlength=len(batch.lines))
