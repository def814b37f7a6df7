"""A batch of texts, taken apart once for all who count, compare or hash: words, lines, and hashes of any span.

    texts ─▶ code points, end to end ─▶ kinds ─▶ words, lines (as spans)
                                    └─▶ prefix sums of a polynomial ─▶ 64-bit hash of any span, without a string

The hash of a span is  sum of VALUE[character] * BASE^(place in the span)  modulo 2^64 (Karp and Rabin, 1987): with
sums kept from the batch's beginning, that of any span is a difference times a power. VALUE is the same for capital and
small letters, so hashes ignore case. No word becomes a Python object.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qwen_core.data.characters import NEWLINE, SIGN, SPACE, UNSPACED, WORD, UInt8s, UInt64s, kinds, mix, values

Ints = npt.NDArray[np.int64]

BASE = 0x9E3779B97F4A7C15
"""Of all polynomial hashes; odd, so that its powers have inverses modulo 2^64."""

BATCH_CHARS = 400_000  # what a batch's arrays hold then stays in the processor's cache
_LONGEST_WORD = 10_000  # a piece ends at white space, unless none is found within so many characters


@dataclass(frozen=True)
class Spans:
    """Stretches of the batch's characters: words, lines, n-grams.

    Attributes:
        start: First character of each, [K].
        end: Behind the last one, [K].
        offsets: Spans of text i are offsets[i] to offsets[i + 1], [N + 1].
    """

    start: Ints
    end: Ints
    offsets: Ints

    def __len__(self) -> int:
        """Count the spans."""
        return len(self.start)

    @property
    def counts(self) -> Ints:
        """Spans of each text, [N]."""
        return np.diff(self.offsets)

    @property
    def lengths(self) -> Ints:
        """Characters of each span, [K]."""
        return self.end - self.start

    @property
    def owner(self) -> Ints:
        """Number of the text of each span, [K]."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts)

    def sums(self, amounts: npt.NDArray[np.generic]) -> Ints:
        """Add up whole numbers of the spans for each text.

        Args:
            amounts: One for each span, [K].

        Returns:
            [N].
        """
        total = running_sums(amounts)
        return np.asarray(total[self.offsets[1:]] - total[self.offsets[:-1]])


class Index:
    """Texts end to end as code points, with a line end behind each.

    Attributes:
        codes: Code points, [C].
        kinds: What each is, bits of `characters`, [C].
        offsets: Text i is codes[offsets[i] : offsets[i + 1] - 1], [N + 1].
    """

    def __init__(self, texts: Sequence[str]) -> None:
        """Take texts apart.

        Args:
            texts: Any texts; `batches` keeps them few enough to be quick.
        """
        joined = "\n".join([*texts, ""])
        self.codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        self.kinds: UInt8s = kinds().take(self.codes)
        lengths = np.fromiter((len(text) + 1 for text in texts), np.int64, len(texts))
        self.offsets = running_sums(lengths)

    def __len__(self) -> int:
        """Count the texts."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """Characters of each text, [N]."""
        return np.diff(self.offsets) - 1

    @functools.cached_property
    def words(self) -> Spans:
        """Words: runs of letters, digits and joiners; in scripts without spaces each character."""
        return self._runs(UNSPACED)

    @functools.cached_property
    def tokens(self) -> Spans:
        """Words, and every sign by itself: all that is visible, so that equal tokens differ in white space at most."""
        return self._runs(UNSPACED | SIGN)

    @functools.cached_property
    def lines(self) -> Spans:
        """Lines without the space around them; empty ones are left out."""
        begin, end = self.stretches.T
        last = np.searchsorted(begin, self.breaks)
        first = np.concatenate((np.zeros(1, np.int64), last))[:-1]
        filled = last > first
        return self.spans(begin[first[filled]], end[last[filled] - 1])

    @functools.cached_property
    def breaks(self) -> Ints:
        """Where lines end, those of the texts included."""
        return np.flatnonzero(self.kinds & NEWLINE)

    @functools.cached_property
    def stretches(self) -> Ints:
        """What stands between spaces: beginning and end of each, [R, 2]."""
        visible = np.zeros(len(self.kinds) + 1, bool)  # with a place before; a line end closes each text
        np.equal(self.kinds & SPACE, 0, out=visible[1:])
        return np.flatnonzero(visible[1:] != visible[:-1]).reshape(-1, 2)

    def spans(self, start: Ints, end: Ints) -> Spans:
        """Sort spans to their texts.

        Args:
            start: Rising, [K].
            end: [K].

        Returns:
            The spans.
        """
        return Spans(start, end, np.searchsorted(start, self.offsets).astype(np.int64))

    def count(self, mask: npt.NDArray[np.bool_]) -> Ints:
        """Count marked characters of each text.

        Args:
            mask: [C].

        Returns:
            [N].
        """
        return np.asarray(np.add.reduceat(mask, self.offsets[:-1], dtype=np.int64)) if len(self) else self.lengths

    def hashes(self, start: Ints, end: Ints) -> UInt64s:
        """Hash spans; equal texts have equal hashes wherever they stand, capital letters like small ones.

        Args:
            start: First character of each, [K].
            end: Behind the last one, [K].

        Returns:
            [K], well mixed.
        """
        raw = (self._sums[end] - self._sums[start]) * _powers(len(self.codes), True)[start]
        return mix(raw)

    @functools.cached_property
    def word_hashes(self) -> UInt64s:
        """Hash of each word, [K]."""
        return self.hashes(self.words.start, self.words.end)

    @functools.cached_property
    def token_hashes(self) -> UInt64s:
        """Hash of each token, [K]; that of a word is its word hash."""
        return self.hashes(self.tokens.start, self.tokens.end)

    @functools.cached_property
    def _sums(self) -> UInt64s:
        sums = np.zeros(len(self.codes) + 1, np.uint64)
        np.cumsum(values().take(self.codes) * _powers(len(self.codes), False)[: len(self.codes)], out=sums[1:])
        return sums

    def _runs(self, single: np.uint8) -> Spans:
        """Find runs of word characters; those of the `single` kinds are spans by themselves."""
        inside = np.zeros(len(self.kinds) + 1, bool)  # with a place before the first character
        np.not_equal(self.kinds & WORD, 0, out=inside[1:])
        begins = inside[1:] > inside[:-1]
        ends = inside[1:] < inside[:-1]  # a line end closes each text, so every word has one
        alone = (self.kinds & single) != 0
        if alone.any():
            begins |= alone
            ends[1:] |= alone[:-1]
        return self.spans(np.flatnonzero(begins), np.flatnonzero(ends))


def running_sums(amounts: npt.NDArray[np.generic]) -> Ints:
    """Add up whole numbers from the first one on.

    Args:
        amounts: Numbers or marks, [K].

    Returns:
        The sum of all before each, and of all behind the last, [K + 1].
    """
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(amounts, dtype=np.int64)))


def run_hashes(hashes: UInt64s, first: Ints, last: Ints) -> UInt64s:
    """Hash runs of hashes, such as the words of an n-gram; equal runs have equal hashes wherever they stand.

    Args:
        hashes: Of words, tokens or lines, [K].
        first: Where each run begins in them, [R].
        last: Behind its last one, [R]; an empty run is allowed.

    Returns:
        [R], well mixed.
    """
    return mix(run_sums(hashes, first, last))


def run_sums(hashes: UInt64s, first: Ints, last: Ints) -> UInt64s:
    """Compute what `run_hashes` mixes: that of two runs on end is  one + other * BASE^(length of one).

    Args:
        hashes: Of words, tokens or lines, [K].
        first: Where each run begins in them, [R].
        last: Behind its last one, [R]; an empty run is allowed.

    Returns:
        [R].
    """
    sums = np.zeros(len(hashes) + 1, np.uint64)
    np.cumsum(hashes * _powers(len(hashes), False)[: len(hashes)], out=sums[1:])
    return np.asarray((sums[last] - sums[first]) * _powers(len(hashes) + 1, True)[first])


def batches(texts: Sequence[str], max_chars: int = BATCH_CHARS) -> Iterator[tuple[slice, Index]]:
    """Cut texts into batches that are quick to index.

    Args:
        texts: Any number.
        max_chars: Characters in a batch; a longer text is a batch of its own.

    Yields:
        Which texts these are, and their index.
    """
    start, size = 0, 0
    for number, text in enumerate(texts):
        if size and size + len(text) > max_chars:
            yield slice(start, number), Index(texts[start:number])
            start, size = number, 0
        size += len(text) + 1
    if start < len(texts):
        yield slice(start, len(texts)), Index(texts[start:])


def pieces(text: str, overlap_chars: int = 0) -> Iterator[tuple[int, int]]:
    """Cut a text that is too long for one batch, at white space, so that no word falls in two.

    Args:
        text: Any.
        overlap_chars: A piece repeats so much of the one before.

    Yields:
        Where each piece begins and ends; one of the whole text, if it is short enough.
    """
    start = end = 0
    while end < len(text):
        end = start + BATCH_CHARS - 1
        if end < len(text):
            spaces = [text.rfind(space, end - _LONGEST_WORD, end) + 1 for space in (" ", "\n")]
            end = max(spaces) or end
        yield start, min(end, len(text))
        start = end - overlap_chars


@functools.lru_cache(maxsize=4)
def _powers_up_to(size: int, inverse: bool) -> UInt64s:
    base = pow(BASE, -1, 2**64) if inverse else BASE
    powers = np.full(size, np.uint64(base))
    powers[0] = 1
    return np.asarray(np.multiply.accumulate(powers))


def _powers(size: int, inverse: bool) -> UInt64s:
    """Powers of the base, for sizes rounded up so that batches share them."""
    return _powers_up_to(1 << max(20, size.bit_length()), inverse)
