"""Many phrases looked for in a batch at once.

pairs of characters ─▶ a table: is it the rarest of a phrase? ─▶ the few places left ─▶ letter by letter
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qwen_core.data.index import Index, Ints

UInt32s = npt.NDArray[np.uint32]
_OFTEN = " etaoinsrhldcumfpgwybvkxjqz"  # from the most frequent down
_PAIR = np.uint32(0x9E3779B1)


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
        self._table = np.zeros(1 << 16, bool)
        self._table[self._pairs >> np.uint32(16)] = True

    def find(self, index: Index, pairs: UInt32s) -> list[Ints]:
        """Find all phrases.

        Args:
            index: The batch.
            pairs: Of its characters.

        Returns:
            For each phrase where it begins, rising.
        """
        places = np.flatnonzero(self._table[pairs >> np.uint32(16)])
        pairs = pairs[places]
        found = []
        for pair, anchor, letters in zip(self._pairs, self._anchors.tolist(), self._letters, strict=True):
            begin = places[pairs == pair] - anchor
            begin = begin[(begin >= 0) & (begin + len(letters) <= len(index.codes))]
            for step, code in enumerate(letters):
                begin = begin[_folded(index.codes[begin + step]) == code]
            found.append(begin)
        return found


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


def pairs(codes: UInt32s) -> UInt32s:
    """Number each character with the one behind it, capitals of ASCII like small letters.

    Args:
        codes: Code points, [C].

    Returns:
        [C].
    """
    folded = _folded(codes)
    mixed = folded * _PAIR
    mixed[:-1] ^= folded[1:] * np.uint32(0x85EBCA6B)
    return mixed * _PAIR


def _folded(codes: UInt32s) -> UInt32s:
    capital = (codes - np.uint32(65)) < 26  # unsigned: smaller ones wrap around
    return np.asarray(codes + (capital.astype(np.uint32) << np.uint32(5)))
