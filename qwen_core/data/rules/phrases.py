"""Many phrases looked for in a batch at once.

pairs of characters ─▶ a table: is it the rarest of a phrase? ─▶ the few places left ─▶ letter by letter
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qwen_core.data.index import Index, Ints

UInt16s = npt.NDArray[np.uint16]
UInt32s = npt.NDArray[np.uint32]
_OFTEN = " etaoinsrhldcumfpgwybvkxjqz"  # from the most frequent down
_FIRST, _SECOND = np.uint16(0x9E37), np.uint16(0x85EB)
_FEW = 10  # pairs are sooner compared with each character than looked up in a table
_SMALL = 32  # the bit that tells small letters of ASCII from capitals


class Phrases:
    """A list of phrases, ready to be looked for; capitals of ASCII are like small letters."""

    def __init__(self, phrases: Sequence[str]) -> None:
        """Prepare a list.

        Args:
            phrases: Of two characters at least, without line ends.
        """
        index = Index([phrase.lower() for phrase in phrases])
        start = index.offsets[:-1]
        self._letters = [[ord(character) for character in phrase.lower()] for phrase in phrases]
        self._anchors = np.asarray([_rarest_pair(phrase.lower()) for phrase in phrases], np.int64)
        self._pairs = pairs(index.codes)[start + self._anchors]
        self._different = np.unique(self._pairs)
        self._table = np.zeros(1 << 16, bool)
        self._table[self._pairs] = True

    def find(self, index: Index, pairs: UInt16s) -> list[Ints]:
        """Find all phrases.

        Args:
            index: The batch.
            pairs: Of its characters.

        Returns:
            For each phrase where it begins, rising.
        """
        places = self._candidates(pairs)
        pairs = pairs[places]
        found = []
        for pair, anchor, letters in zip(self._pairs, self._anchors.tolist(), self._letters, strict=True):
            begin = places[pairs == pair] - anchor
            begin = begin[(begin >= 0) & (begin + len(letters) <= len(index.codes))]
            found.append(spelled(index.codes, begin, letters))
        return found

    def _candidates(self, pairs: UInt16s) -> Ints:
        """Find the places of any of the pairs."""
        if len(self._different) > _FEW:
            return np.flatnonzero(self._table.take(pairs))
        marked = np.zeros(len(pairs), bool)
        for pair in self._different:
            marked |= pairs == pair
        return np.flatnonzero(marked)


def _rarest_pair(phrase: str) -> int:
    """Find where the pair of characters begins that English text has least often."""
    often = [_OFTEN.find(character) % (len(_OFTEN) + 1) for character in phrase]  # what is not there is rarest
    return max(range(len(phrase) - 1), key=lambda at: often[at] + often[at + 1])


@functools.lru_cache(maxsize=32)
def prepared(phrases: tuple[str, ...]) -> Phrases:
    """Prepare a list once for each process.

    Args:
        phrases: Of two characters at least.

    Returns:
        The list.
    """
    return Phrases(phrases)


def pairs(codes: UInt32s) -> UInt16s:
    """Number each character with the one behind it, capitals of ASCII like small letters; some share a number.

    Args:
        codes: Code points, [C].

    Returns:
        [C].
    """
    folded = codes.astype(np.uint16) | np.uint16(_SMALL)
    mixed = folded * _FIRST
    mixed[:-1] ^= folded[1:] * _SECOND
    return mixed


def spelled(codes: UInt32s, begin: Ints, letters: Sequence[int]) -> Ints:
    """Find which places a phrase stands at.

    Args:
        codes: Code points, [C].
        begin: Places to look at; the phrase must fit behind each.
        letters: Code points of the phrase, small.

    Returns:
        Those of the places.
    """
    for step, code in enumerate(letters):
        if not len(begin):
            break
        begin = begin[_folded(codes[begin + step]) == code]
    return begin


def _folded(codes: UInt32s) -> UInt32s:
    capital = (codes - np.uint32(65)) < 26  # unsigned: smaller ones wrap around
    return np.asarray(codes + (capital.astype(np.uint32) << np.uint32(5)))
