"""Counterparts of the rules for Chinese, simplified and traditional, and for Japanese; a character counts as a word.

lines ─▶ without boilerplate (navigation, notices of rights and registration) ─▶ shares of lines, characters and signs

Thresholds of MAP-CC (Du et al., 2024, Chinese Tiny LLM, arXiv 2404.04167, and the pipeline published with it): at
least 50 characters and two sentences, digits at most 0.3, text in 【】 at most 0.1, # and … at most 0.1, lines that end
in a "read more" at most 0.3, bullet lines at most 0.9, an entropy of characters of at least 3 nats, and Gopher's
n-grams over characters with 0.6 for repeated ones. Of ChineseWebText (Chen et al., 2023, arXiv 2311.01149): lines of
10 characters on average, and 0.3 of all characters Chinese, below which we do not drop a document but judge it as
text in words. Of FineWeb: 0.12 of the lines end in a sign.

Where we depart: boilerplate lines are taken out before; short lines are asked for only where few end in a sign, for
such are verse and speech; a document is short by its letters rather than by all its signs; 10,000 characters are not
too many, for `ingest` cuts long documents; traditional characters are welcome, which ChineseWebText drops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qwen_core.data.characters import DIGIT, NEWLINE, SIGN, SPACE
from qwen_core.data.index import Index, Ints
from qwen_core.data.rules.batch import Batch, Bools, Broken, Floats
from qwen_core.data.rules.edits import Edits
from qwen_core.data.rules.gopher_quality import bullet_lines, ellipsis_lines
from qwen_core.data.rules.gopher_repetition import paragraphs
from qwen_core.data.rules.repeats import seen_before
from qwen_core.data.rules.segment import mean_word_lengths
from qwen_core.data.rules.signs import ENDS_SENTENCE

_VERSE = 0.5  # where so many lines end in a sign, short ones are verse or speech
_CLOSERS = tuple(map(ord, "”’」』）)\"'】》"))
_LINE_ENDS = tuple(map(ord, "。！？；：!?.;:…"))


def edit_lines(batch: Batch, limits: Mapping[str, Any]) -> Edits:
    """Take boilerplate lines out.

    Args:
        batch: Documents.
        limits: The recipe's section.

    Returns:
        The edits.
    """
    edits = Edits.none(batch)
    if limits["removes_boilerplate_lines"]:
        short = batch.lines.lengths <= limits["max_boilerplate_line_characters"]
        (notice,) = batch.lines_with(limits["boilerplate_phrases"])
        edits.remove("boilerplate", short & notice & ~_ends_well(batch, edits.end))
        edits.remove("navigation", _is_one_of(batch, limits["navigation_words"]))
    return edits


def broken_rules(batch: Batch, limits: Mapping[str, Any], edits: Edits) -> Broken:
    """Judge what is left.

    Args:
        batch: Documents.
        limits: The recipe's section.
        edits: Lines taken out before.

    Returns:
        Reasons in order, each with the documents that break it.
    """
    lines, kept, index = batch.lines, edits.kept, batch.index
    visible = np.maximum(1, batch.visible)
    digits = index.count((index.kinds & DIGIT) != 0) / np.maximum(1, batch.alphanumeric)
    signs = index.count((index.kinds & SIGN) != 0) / visible
    ended = batch.line_ratio(_ends_well(batch, edits.end), kept)
    gone = batch.line_ratio(~kept)
    mean_line = lines.sums((edits.end - lines.start) * kept) / np.maximum(1, lines.sums(kept))
    return [
        ("boilerplate", gone > limits["max_boilerplate_line_ratio"]),
        ("too_few_characters", batch.alphanumeric < limits["min_characters"]),
        ("too_many_characters", batch.alphanumeric > limits["max_characters"]),
        ("short_lines", (mean_line < limits["min_mean_line_characters"]) & (ended < _VERSE)),
        ("few_line_ends", ended < limits["min_line_punctuation_ratio"]),
        ("too_few_sentences", _sentences(batch) < limits["min_sentences"]),
        ("many_signs", signs > limits["max_sign_ratio"]),
        ("many_digits", digits > limits["max_digit_ratio"]),
        ("hash_signs", index.count(index.codes == ord("#")) / visible > limits["max_symbol_ratio"]),
        ("ellipses", index.count(index.codes == ord("…")) / visible > limits["max_symbol_ratio"]),
        ("brackets", _bracketed(batch) / visible > limits["max_bracket_ratio"]),
        ("read_more_lines", batch.line_ratio(_reads_on(batch, limits), kept) > limits["max_read_more_line_ratio"]),
        ("bullet_lines", batch.line_ratio(bullet_lines(batch), kept) > limits["max_bullet_line_ratio"]),
        ("low_variety", _entropy(batch) < limits["min_entropy"]),
        *_repeated(batch, limits),
        ("odd_words", _has_odd_words(batch, limits["min_mean_word_length"], limits["max_mean_word_length"])),
    ]


def _ends_well(batch: Batch, end: Ints) -> Bools:
    """Tell which lines end in a closing sign, behind which a quote or bracket may stand."""
    codes = batch.index.codes
    last = codes[end - 1]
    return np.isin(last, _LINE_ENDS) | (np.isin(last, _CLOSERS) & np.isin(codes[np.maximum(end - 2, 0)], _LINE_ENDS))


def _is_one_of(batch: Batch, words: Sequence[str]) -> Bools:
    index = Index(words)
    known = index.hashes(index.offsets[:-1], index.offsets[1:] - 1)
    found = np.zeros(len(batch.lines), bool)
    short = batch.lines.lengths <= max(map(len, words), default=0)
    found[short] = np.isin(batch.index.hashes(batch.lines.start[short], batch.lines.end[short]), known)
    return found


def _sentences(batch: Batch) -> Ints:
    """Count sentences by the runs of closing signs."""
    closing = (batch.bits & ENDS_SENTENCE) != 0
    closing[:-1] &= ~closing[1:]
    return batch.index.count(closing)


def _bracketed(batch: Batch) -> Ints:
    """Count characters within 【 and 】 of one line."""
    codes, index = batch.index.codes, batch.index
    signs = np.flatnonzero((codes == ord("【")) | (codes == ord("】")) | ((index.kinds & NEWLINE) != 0))
    pair = np.flatnonzero((codes[signs[:-1]] == ord("【")) & (codes[signs[1:]] == ord("】")))
    begin = signs[pair]
    size = signs[pair + 1] - begin - 1
    return np.bincount(batch.owners(begin), weights=size, minlength=len(batch)).astype(np.int64)


def _reads_on(batch: Batch, limits: Mapping[str, Any]) -> Bools:
    """Mark lines that end in a word like 更多, or in an ellipsis of any kind."""
    marked = ellipsis_lines(batch)
    phrases = limits["read_more_phrases"]
    for phrase, places in zip(phrases, batch.places(phrases), strict=True):
        line = batch.line_numbers(places)
        marked[line[batch.lines.end[line] == places + len(phrase)]] = True
    return marked


def _entropy(batch: Batch) -> Floats:
    """Compute the entropy of each text's visible characters, in nats."""
    codes, lengths = batch.index.codes, np.diff(batch.index.offsets)
    visible = (batch.index.kinds & SPACE) == 0
    keys: npt.NDArray[np.uint32] | npt.NDArray[np.uint64]
    if len(batch) < 1 << 16 and codes.max(initial=0) < 1 << 16:  # half the width, twice the speed
        bits = 16
        keys = ((np.repeat(np.arange(len(batch), dtype=np.uint32), lengths) << np.uint32(bits)) | codes)[visible]
    else:
        bits = 21
        keys = ((np.repeat(np.arange(len(batch), dtype=np.uint64), lengths) << np.uint64(bits)) | codes)[visible]
    keys.sort()
    if not len(keys):
        return np.zeros(len(batch))
    edges = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1], [True])))
    times = np.diff(edges)
    text = (keys[edges[:-1]] >> bits).astype(np.int64)
    total = np.maximum(1, np.bincount(text, weights=times, minlength=len(batch)))
    share = times / total[text]
    return np.asarray(np.bincount(text, weights=-share * np.log(share), minlength=len(batch)))


def _repeated(batch: Batch, limits: Mapping[str, Any]) -> Broken:
    """Judge repeated paragraphs and lines as Gopher does."""
    broken: Broken = []
    size = np.maximum(1, batch.index.lengths)
    for name, spans in (("paragraph", paragraphs(batch)), ("line", batch.lines)):
        seen = seen_before(batch.index.hashes(spans.start, spans.end), spans.owner)
        characters = spans.sums(seen * spans.lengths) / size
        broken += [
            (f"duplicate_{name}s", spans.sums(seen) / np.maximum(1, spans.counts) > limits["max_duplicate_line_ratio"]),
            (f"duplicate_{name}_characters", characters > limits["max_duplicate_line_character_ratio"]),
        ]
    return broken


def _has_odd_words(batch: Batch, least: float, most: float) -> Bools:
    """Tell whose words, cut by a segmenter, are too short or too long on average; 0 switches the rule off."""
    if not least:
        return np.zeros(len(batch), bool)
    mean = mean_word_lengths(batch.texts)
    return (mean > 0) & ((mean < least) | (mean > most))
