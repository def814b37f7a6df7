"""What stands in a document twice: lines, paragraphs, n-grams, by 64-bit hashes and one sort for a whole batch.

An n-gram that is repeated has an (n-1)-gram that is: after pairs are sorted, each longer size looks only at what is
left of the shorter one, which soon is a few percent of the words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qwen_core.data.characters import UInt64s, mix
from qwen_core.data.index import Ints, Spans

Bools = npt.NDArray[np.bool_]
_STEP = np.uint64(0xD6E8FEB86659FD93)  # odd: n-grams' hashes are polynomials in it


@dataclass(frozen=True)
class Repeated:
    """N-grams that stand in their document more than once.

    Attributes:
        size: Words of each.
        place: First token of each, rising, [R].
        group: Number of what stands there, equal for equal n-grams of one document, [R].
        is_first: Nothing equal stands before, [R].
    """

    size: int
    place: Ints
    group: Ints
    is_first: Bools


def seen_before(hashes: UInt64s, owner: Ints) -> Bools:
    """Mark what stands in the same document before.

    Args:
        hashes: Of lines or the like, [K].
        owner: Document of each, rising, [K].

    Returns:
        [K].
    """
    place, _, is_first = _repeated(_of_document(hashes, owner))
    seen = np.zeros(len(hashes), bool)
    seen[place[~is_first]] = True
    return seen


def repeated_ngrams(spans: Spans, hashes: UInt64s, wanted: Bools, max_size: int) -> Iterator[Repeated]:
    """Find repeated n-grams, from pairs upwards.

    Args:
        spans: Tokens of a batch.
        hashes: Of each token, [K].
        wanted: Documents to look at, [N].
        max_size: The longest n-gram.

    Yields:
        The repeated ones of 2, 3 ... `max_size` tokens.
    """
    owner = spans.owner
    stop = spans.offsets[1:][owner]
    place = np.flatnonzero(wanted[owner])
    key = _of_document(hashes, owner)[place]
    for size in range(2, max_size + 1):
        fits = place + size <= stop[place]
        place = place[fits]
        key = key[fits] * _STEP + hashes[place + (size - 1)]
        chosen, group, is_first = _repeated(key)
        member, first, number = np.zeros(len(key), bool), np.zeros(len(key), bool), np.empty(len(key), np.int64)
        member[chosen], first[chosen], number[chosen] = True, is_first, group  # puts them in order of place
        place, key = place[member], key[member]
        yield Repeated(size, place, number[member], first[member])


def _of_document(hashes: UInt64s, owner: Ints) -> UInt64s:
    return hashes ^ mix(owner.astype(np.uint64))


def _repeated(keys: UInt64s) -> tuple[Ints, Ints, Bools]:
    """Find keys that occur more than once: their places, group by group, each group's number, and its first."""
    bits = np.uint64(len(keys).bit_length())
    packed = (keys >> bits << bits) | np.arange(len(keys), dtype=np.uint64)  # sorts by key, then by place
    packed.sort()
    key = packed >> bits
    same = key[1:] == key[:-1]
    member = np.zeros(len(keys), bool)
    member[1:] = same
    is_first = ~member
    member[:-1] |= same
    place = (packed[member] & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    is_first = is_first[member]
    return place, np.cumsum(is_first) - 1, is_first
