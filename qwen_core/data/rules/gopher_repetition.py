"""Gopher's repetition rules (Rae et al., 2021, arXiv 2112.11446, section A.1.1 and table A1).

paragraphs, lines ─▶ those that stand in the document before ─▶ shares of their number and of all characters
tokens ─▶ the most frequent n-gram's share; the share of n-grams that stand before

The last is defined word by word: walk through the text, and where the n words ahead were met at an earlier step,
count their characters and jump behind them. Only repeated n-grams can take part, and their joint cover bounds the
count from above; the walk itself is done for the few documents that the bound does not clear, and gives the same
number as a plain loop. Where we depart from datatrove: the space around lines does not make two lines different.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qwen_core.data.index import Ints, Spans, running_sums
from qwen_core.data.rules.batch import Batch, Bools, Broken, Floats
from qwen_core.data.rules.repeats import Repeated, repeated_ngrams, seen_before

Limits = Mapping[int, Floats]
"""Highest share for each document, [N], by n."""


def broken_rules(batch: Batch, limits: Mapping[str, Any]) -> Broken:
    """Apply the rules on paragraphs and lines.

    Args:
        batch: Documents.
        limits: The recipe's section.

    Returns:
        Reasons in order, each with the documents that break it.
    """
    broken: Broken = []
    size = np.maximum(1, batch.index.lengths)
    for name, spans in (("paragraph", paragraphs(batch)), ("line", batch.lines)):
        hashes = batch.index.hashes(spans.start, spans.end)
        seen = seen_before(batch.cased(hashes, spans.start, spans.end), spans.owner)
        ratio = spans.sums(seen) / np.maximum(1, spans.counts)
        characters = spans.sums(seen * spans.lengths) / size
        broken += [
            (f"duplicate_{name}s", ratio > limits[f"max_duplicate_{name}_ratio"]),
            (f"duplicate_{name}_characters", characters > limits[f"max_duplicate_{name}_character_ratio"]),
        ]
    return broken


def broken_ngram_rules(batch: Batch, top: Limits, duplicate: Limits, decided: Bools, spaced: Bools) -> Broken:
    """Apply the rules on n-grams.

    Args:
        batch: Documents.
        top: Limits on the most frequent n-gram.
        duplicate: Limits on n-grams that stand before.
        decided: Documents that are dropped anyway, which saves the walk, [N].
        spaced: Documents with a space between words, which counts for the most frequent n-gram, [N].

    Returns:
        Reasons in order, each with the documents that break it.
    """
    broken_top: Broken = []
    broken_duplicate: Broken = []
    unlimited = [~np.isfinite(limit) for limit in (*top.values(), *duplicate.values())]
    decided = decided | np.logical_and.reduce(unlimited) if unlimited else np.ones(len(batch), bool)
    size = np.maximum(1, batch.index.lengths)
    ends = running_sums(batch.tokens.lengths)  # characters before each token
    tokens = batch.tokens
    hashes = batch.cased(batch.token_hashes, tokens.start, tokens.end)
    for repeated in repeated_ngrams(tokens, hashes, ~decided, max((*top, *duplicate, 0))):
        n = repeated.size
        if n in top:
            mask = top_characters(tokens, ends, repeated, spaced) / size > top[n]
            broken_top.append((f"frequent_{n}_gram", mask))
            decided |= mask
        if n in duplicate:
            mask = _exceeds(tokens, ends, repeated, duplicate[n] * size, decided)
            broken_duplicate.append((f"repeated_{n}_grams", mask))
            decided |= mask
    return broken_top + broken_duplicate


def paragraphs(batch: Batch) -> Spans:
    """Find paragraphs: lines with no empty line between.

    Args:
        batch: Documents.

    Returns:
        From the first line's beginning to the last one's end.
    """
    lines, codes = batch.lines, batch.index.codes
    if not len(lines):
        return lines
    empty = np.zeros(len(codes) + 1, np.int64)
    np.cumsum((codes[1:] == ord("\n")) & (codes[:-1] == ord("\n")), out=empty[1:-1])
    empty[-1] = empty[-2]
    apart = empty[lines.start[1:] - 1] > empty[lines.end[:-1]]
    apart |= lines.owner[1:] != lines.owner[:-1]
    first = np.flatnonzero(np.concatenate(([True], apart)))
    last = np.flatnonzero(np.concatenate((apart, [True])))
    return batch.index.spans(lines.start[first], lines.end[last])


def top_characters(tokens: Spans, ends: Ints, repeated: Repeated, spaced: Bools) -> Ints:
    """Count the characters of each document's most frequent n-gram, all occurrences, with the spaces between words.

    Args:
        tokens: Of the batch.
        ends: Characters before each token, [K + 1].
        repeated: N-grams that stand more than once.
        spaced: Documents with a space between words, [N].

    Returns:
        [N]; of several equally frequent ones the first counts.
    """
    n, number = repeated.size, len(tokens.counts)
    filled = np.flatnonzero(tokens.counts >= n)
    count, first = np.zeros(number, np.int64), np.full(number, len(tokens))
    count[filled], first[filled] = 1, tokens.offsets[:-1][filled]
    leader = repeated.is_first
    times = np.bincount(repeated.group)[repeated.group[leader]]
    place = repeated.place[leader]
    owner = np.searchsorted(tokens.offsets, place, side="right") - 1
    np.maximum.at(count, owner, times)
    best = times == count[owner]
    first[owner[best]] = len(tokens)
    np.minimum.at(first, owner[best], place[best])
    last = np.minimum(first + n, len(tokens))
    return np.asarray(count * (ends[last] - ends[np.minimum(first, last)] + (n - 1) * spaced))


def _exceeds(tokens: Spans, ends: Ints, repeated: Repeated, limit: Floats, decided: Bools) -> Bools:
    """Tell whose repeated n-grams hold more characters than allowed."""
    unclear = np.flatnonzero(~decided & (_cover(tokens, ends, repeated) > limit))
    exceeds = np.zeros(len(limit), bool)
    bounds = np.searchsorted(repeated.place, tokens.offsets)
    for number in unclear:
        part = slice(bounds[number], bounds[number + 1])
        exceeds[number] = _walk(repeated, part, ends) > limit[number]
    return exceeds


def _cover(tokens: Spans, ends: Ints, repeated: Repeated) -> Ints:
    """Count the characters of all words that belong to an n-gram that stands before, each once."""
    place = repeated.place[~repeated.is_first]
    behind = place + repeated.size
    begin = place.copy()
    begin[1:] = np.maximum(place[1:], behind[:-1])
    total = running_sums(ends[behind] - ends[begin])
    bounds = np.searchsorted(place, tokens.offsets)
    return np.asarray(total[bounds[1:]] - total[bounds[:-1]])


def _walk(repeated: Repeated, part: slice, ends: Ints) -> int:
    """Count the characters of one document's repeated n-grams, jumping behind each."""
    place = repeated.place[part]
    widths = (ends[place + repeated.size] - ends[place]).tolist()
    met: set[int] = set()
    total = next_place = 0
    for at, group, width in zip(place.tolist(), repeated.group[part].tolist(), widths, strict=True):
        if at < next_place:
            continue
        if group in met:
            total += width
            next_place = at + repeated.size
        else:
            met.add(group)
    return int(total)
