"""MinHash signatures (Broder, 1997) of batches of documents, equal to datasketch's, and their LSH bands.

    words ─▶ 64-bit word hashes ─▶ rolling shingle hashes ─▶ 32 bits ─▶ affine permutations ─▶ minima ─▶ band hashes

A shingle is `shingle_words` consecutive words (a CJK character counts as one). Its hash is polynomial over its
words' hashes, so that no shingle is ever built as a string; fed to `datasketch.MinHash` as ready hash values, it
gives the same signature.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
from datasketch import MinHash

from qwen_core.data.words import Words

UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
_BASE = np.uint64(0x9E3779B97F4A7C15)
_BLOCK_SHINGLES = 4096  # times 112 permutations of 4 bytes: a block stays in the cache, however long a document is


def shingle_hashes(words: Words, shingle_words: int) -> tuple[UInt32s, npt.NDArray[np.int64]]:
    """Hash all shingles of a batch.

    Args:
        words: Of the texts.
        shingle_words: Words in a shingle; a shorter text is one shingle.

    Returns:
        Hashes of all texts end to end, and offsets, one more than there are texts; a text without words has none.
    """
    digests = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in words.vocabulary)
    table = np.frombuffer(digests, dtype="<u8").astype(np.uint64)
    padded = np.concatenate((table[words.codes], np.zeros(shingle_words, np.uint64)))
    lengths = np.where(words.counts > 0, np.maximum(1, words.counts - shingle_words + 1), 0)
    offsets = np.concatenate(([0], lengths.cumsum()))
    document = np.repeat(np.arange(len(lengths)), lengths)
    first = words.offsets[:-1][document] + np.arange(offsets[-1]) - offsets[:-1][document]
    end = words.offsets[1:][document]
    rolled = np.zeros(len(first), np.uint64)
    for place in range(shingle_words):
        inside = first + place < end  # a short text's shingle must not reach into the next text
        rolled = np.where(inside, rolled * _BASE + padded[first + place], rolled)
    return (rolled >> np.uint64(32)).astype(np.uint32), offsets


def signatures(hashes: UInt32s, offsets: npt.NDArray[np.int64], num_perm: int, seed: int) -> UInt32s:
    """Compute signatures from shingle hashes.

    Args:
        hashes: Of all texts end to end.
        offsets: Where each text's begin, and the end.
        num_perm: Length of a signature.
        seed: Of datasketch's permutations.

    Returns:
        [texts, num_perm]; all ones for a text without shingles, as datasketch has it.
    """
    a, b = MinHash(num_perm=num_perm, seed=seed, scheme="affine32").permutations
    mixed = _mix(hashes)
    result = np.full((len(offsets) - 1, num_perm), np.uint32(0xFFFFFFFF))
    document = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    for start in range(0, len(mixed), _BLOCK_SHINGLES):
        block = slice(start, start + _BLOCK_SHINGLES)
        values = mixed[block, None] * a[None, :] + b[None, :]  # [shingles, num_perm], modulo 2^32
        members = document[block]
        bounds = np.flatnonzero(np.concatenate(([True], members[1:] != members[:-1])))
        minima = np.minimum.reduceat(values, bounds, axis=0)
        rows = members[bounds]
        result[rows] = np.minimum(result[rows], minima)
    return result


def band_hashes(signature: UInt32s, num_buckets: int) -> UInt64s:
    """Hash each band of the signatures.

    Args:
        signature: [texts, num_buckets * hashes_per_bucket].
        num_buckets: Bands.

    Returns:
        [texts, num_buckets]; equal bands have equal hashes.
    """
    rows = signature.reshape(len(signature), num_buckets, -1)
    hashed = np.full(rows.shape[:2], 0xCBF29CE484222325, np.uint64)
    for place in range(rows.shape[2]):
        hashed = (hashed ^ rows[:, :, place].astype(np.uint64)) * _BASE
        hashed ^= hashed >> np.uint64(29)
    return hashed


def _mix(values: UInt32s) -> UInt32s:
    """Spread 32-bit hashes (MurmurHash3's finaliser), as datasketch does before it permutes."""
    mixed = values.copy()
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(factor)
    mixed ^= mixed >> np.uint32(16)
    return mixed
