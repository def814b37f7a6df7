"""Many phrases looked for in a batch at once.

pairs of characters ─▶ a table: does a phrase begin so? ─▶ the few places left ─▶ 64-bit hash of the whole phrase
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qwen_core.data.index import Index, Ints

UInt32s = npt.NDArray[np.uint32]
_PAIR = np.uint32(0x9E3779B1)


class Phrases:
    """A list of phrases, ready to be looked for; capitals of ASCII are like small letters.

    Attributes:
        lengths: Characters of each.
    """

    def __init__(self, phrases: Sequence[str]) -> None:
        """Prepare a list.

        Args:
            phrases: Of two characters at least, without line ends.
        """
        index = Index([phrase.lower() for phrase in phrases])
        start, end = index.offsets[:-1], index.offsets[1:] - 1
        self.lengths: Ints = end - start
        self._hashes = index.hashes(start, end)
        self._pairs = pairs(index.codes)[start]
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
        for pair, length, known in zip(self._pairs, self.lengths.tolist(), self._hashes, strict=True):
            begin = places[pairs == pair]
            begin = begin[begin + length <= len(index.codes)]
            found.append(begin[index.hashes(begin, begin + length) == known] if len(begin) else begin)
        return found


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
    capital = (codes - np.uint32(65)) < 26  # unsigned: smaller ones wrap around
    folded = codes + (capital.astype(np.uint32) << np.uint32(5))
    mixed = folded * _PAIR
    mixed[:-1] ^= folded[1:] * np.uint32(0x85EBCA6B)
    return mixed * _PAIR
