"""A batch of documents as the rules look at it: taken apart once, each view made when the first rule asks for it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qwen_core.data.characters import DIGIT, LETTER, NEWLINE, SPACE, UNSPACED, UPPER, UInt64s
from qwen_core.data.index import Index, Ints, Spans, running_sums
from qwen_core.data.rules.phrases import pairs, prepared
from qwen_core.data.rules.prose import Source
from qwen_core.data.rules.signs import UInt16s, signs
from qwen_core.data.rules.tokens import tokens

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Broken = list[tuple[str, Bools]]
"""What a family of rules answers: reasons in order, each with the documents that break it, [N]."""


_FIRST_HAN = 0x2E80  # before it: Thai, Lao, Myanmar, Khmer
_WRAP_CHARACTERS, _WRAP_INDENT = 40, 12  # the shortest line that may be wrapped, and the widest gap to the next one
_CASE = np.uint64(0xD6E8FEB86659FD93)


class Batch:
    """Documents, taken apart.

    Attributes:
        texts: The documents, [N].
        languages: Their languages, without script or region, [N].
        index: Their characters.
        source: Whole documents, where the texts are only their prose.
    """

    def __init__(
        self,
        texts: Sequence[str],
        languages: Sequence[str | None],
        index: Index | None = None,
        source: Source | None = None,
    ) -> None:
        """Hold a batch.

        Args:
            texts: The documents.
            languages: Of each, such as `en`, `zh-Hant`, `code`.
            index: Of the same texts, where there is one already.
            source: Whole documents, where the texts are only their prose.
        """
        self.source = source
        self.texts = texts
        self.index = Index(texts) if index is None else index
        self.languages = np.asarray([primary(language) for language in languages], dtype=object)

    def __len__(self) -> int:
        """Count the documents."""
        return len(self.texts)

    @functools.cached_property
    def bits(self) -> UInt16s:
        """What each character is to the rules, [C]."""
        return signs().take(self.index.codes)

    @functools.cached_property
    def tokens(self) -> Spans:
        """Words and signs."""
        return tokens(self.index, self.bits)

    @functools.cached_property
    def token_bits(self) -> UInt16s:
        """Bits that any character of a token has, [K]."""
        if not len(self.tokens):
            return np.zeros(0, np.uint16)
        visible = np.where(self.index.kinds & SPACE, np.uint16(0), self.bits)
        return np.asarray(np.bitwise_or.reduceat(visible, self.tokens.start))

    @functools.cached_property
    def token_hashes(self) -> UInt64s:
        """Hash of each token, capitals like small letters, [K]."""
        return self.index.hashes(self.tokens.start, self.tokens.end)

    @functools.cached_property
    def capitals(self) -> npt.NDArray[np.int32]:
        """Capitals before each character, [C + 1]."""
        total = np.zeros(len(self.index.kinds) + 1, np.int32)
        np.cumsum((self.index.kinds & UPPER) != 0, out=total[1:], dtype=np.int32)
        return total

    def cased(self, hashes: UInt64s, start: Ints, end: Ints) -> UInt64s:
        """Make hashes tell capitals from small letters, by their number.

        Args:
            hashes: Of spans, [K].
            start: First character of each, [K].
            end: Behind the last one, [K].

        Returns:
            [K].
        """
        return hashes + (self.capitals[end] - self.capitals[start]).astype(np.uint64) * _CASE

    @functools.cached_property
    def lines(self) -> Spans:
        """Lines that hold something, without the space around them."""
        return self.index.lines

    @functools.cached_property
    def line_words(self) -> tuple[Ints, Ints]:
        """Words of each line (what stands between spaces; each character of a script without), and the longest one."""
        index, lines = self.index, self.lines
        begin, end = index.stretches.T
        first, last = np.searchsorted(begin, lines.start), np.searchsorted(begin, lines.end)
        words, length = last - first, end - begin
        unspaced = (index.kinds & UNSPACED) != 0
        if unspaced.any():
            total = running_sums(unspaced)
            words = words + total[lines.end] - total[lines.start]
            length = length - (total[end] - total[begin])
        return words, np.maximum.reduceat(length, first) if len(lines) else words

    def focus(self, wanted: Bools) -> tuple[Batch, Bools]:
        """Go on with some documents, for what needs tokens, unless they are made already.

        Args:
            wanted: [N].

        Returns:
            These documents, or all, and which of this batch's lines are theirs.
        """
        if "tokens" in vars(self) or wanted.all():
            return self, np.ones(len(self.lines), bool)
        numbers = np.flatnonzero(wanted)
        part = Batch([self.texts[number] for number in numbers.tolist()], self.languages[numbers].tolist())
        return part, wanted[self.lines.owner]

    @functools.cached_property
    def line_ends(self) -> Ints:
        """Line ends within each text, [N]."""
        return self.index.count((self.index.kinds & NEWLINE) != 0) - 1

    @functools.cached_property
    def unspaced_ratio(self) -> Floats:
        """Share of each text's visible characters that belong to a script without spaces, [N]."""
        unspaced = self.index.count((self.index.kinds & UNSPACED) != 0)
        return np.asarray(unspaced / np.maximum(1, self.visible))

    @functools.cached_property
    def han_ratio(self) -> Floats:
        """Share of each text's visible characters that are Han or Kana, [N]."""
        if not self.unspaced_ratio.any():
            return self.unspaced_ratio
        han = ((self.index.kinds & UNSPACED) != 0) & (self.index.codes >= _FIRST_HAN)
        return np.asarray(self.index.count(han) / np.maximum(1, self.visible))

    @functools.cached_property
    def wrapped(self) -> Bools:
        """Lines that only break where a column ended: long, and the next one goes on in small letters."""
        lines, joined = self.lines, np.zeros(len(self.lines), bool)
        if len(lines) > 1:
            following = self.index.kinds[lines.start[1:]]
            small = ((following & LETTER) != 0) & ((following & UPPER) == 0)
            near = lines.start[1:] - lines.end[:-1] <= _WRAP_INDENT
            joined[:-1] = small & near & (lines.lengths[:-1] >= _WRAP_CHARACTERS)
            joined[:-1] &= lines.owner[1:] == lines.owner[:-1]
        return joined

    @functools.cached_property
    def alphanumeric(self) -> Ints:
        """Letters and digits of each text, [N]."""
        return self.index.count((self.index.kinds & (LETTER | DIGIT | UNSPACED)) != 0)

    @functools.cached_property
    def visible(self) -> Ints:
        """Characters of each text that are no space, [N]."""
        return self.index.count((self.index.kinds & SPACE) == 0)

    def lines_with(self, *lists: Sequence[str]) -> list[Bools]:
        """Mark lines that hold any phrase of a list.

        Args:
            lists: Of phrases, in any case.

        Returns:
            For each list one mark for each line.
        """
        found = iter(self.places([phrase for phrases in lists for phrase in phrases]))
        answer = []
        for phrases in lists:
            marked = np.zeros(len(self.lines), bool)
            for _ in phrases:
                marked[self.line_numbers(next(found))] = True
            answer.append(marked)
        return answer

    @functools.cached_property
    def pairs(self) -> UInt16s:
        """Each character with the one behind it, as phrases are looked for, [C]."""
        return pairs(self.index.codes)

    def places(self, phrases: Sequence[str]) -> list[Ints]:
        """Find where phrases begin, for each of them."""
        return prepared(tuple(phrases)).find(self.index, self.pairs) if phrases else []

    def owners(self, places: Ints) -> Ints:
        """Tell in which text each place lies."""
        return np.searchsorted(self.index.offsets, places, side="right") - 1

    def line_numbers(self, places: Ints) -> Ints:
        """Tell in which line each place lies; no place may be in the space between lines."""
        return np.searchsorted(self.lines.start, places, side="right") - 1

    def line_ratio(self, marked: Bools, kept: Bools | None = None) -> Floats:
        """Compute the share of each text's lines that are marked.

        Args:
            marked: One for each line.
            kept: Lines that count; `None` for all.

        Returns:
            [N]; 0 without lines.
        """
        total = self.lines.counts if kept is None else self.lines.sums(kept)
        return np.asarray(self.lines.sums(marked if kept is None else marked & kept) / np.maximum(1, total))


@functools.lru_cache(maxsize=1024)
def primary(language: str | None) -> str:
    """Take script and region off a language.

    Args:
        language: Such as `zh-Hant` or `zh_Hans`.

    Returns:
        Such as `zh`; empty for none.
    """
    return (language or "").replace("_", "-").partition("-")[0]
