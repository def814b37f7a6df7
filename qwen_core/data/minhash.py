"""MinHash signatures (Broder, 1997) of batches of documents, equal to datasketch's, and their LSH bands.

    texts ─▶ word hashes ─▶ rolling shingle hashes ─▶ 32 bits ─▶ affine permutations ─▶ minima ─▶ band hashes
         └─▶ hash of all visible tokens (an exact duplicate has the same)

A shingle is `shingle_words` consecutive words; in scripts without spaces each character counts as a word, in a mixed
document too, as Data-Juicer has it for Chinese. Five characters are fewer words than five, but as rare: of unrelated
Chinese texts hardly any two share one in a hundred, and an edit of one character breaks as many shingles as an edit
of one word does in English, so one threshold means the same in both.

No shingle is ever built as a string; fed to `datasketch.MinHash` as ready hash values, shingle hashes give the same
signature. Memory follows the batch, not the document: a long text is taken in pieces that share a signature.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qwen_core.data.characters import SIGN, UInt64s, mix
from qwen_core.data.index import BASE, BATCH_CHARS, Index, Ints, batches, pieces, run_hashes, run_sums, running_sums

UInt32s = npt.NDArray[np.uint32]

_EMPTY = np.uint32(0xFFFFFFFF)
_BLOCK_SHINGLES = 8192  # with 16 permutations of 4 bytes: what a block is multiplied into stays in the L2 cache
_BLOCK_PERMUTATIONS = 16


@dataclass(frozen=True)
class Sketch:
    """All that is needed to compare documents, without their text.

    Attributes:
        bands: Hash of each LSH band, [N, num_buckets]; near duplicates share one. Of a text without words, all of
            them follow from `exact`.
        exact: Hash of words and signs in their order, [N]: case and white space aside, but `a b` is not `ab`.
        words: Count of words, [N]; in scripts without spaces, characters.
    """

    bands: UInt64s
    exact: UInt64s
    words: Ints


def sketch(texts: Sequence[str], shingle_words: int, num_buckets: int, hashes_per_bucket: int, seed: int) -> Sketch:
    """Sketch texts; what a text's is depends on nothing but the text and the settings.

    Args:
        texts: Of any number and length.
        shingle_words: Words in a shingle.
        num_buckets: LSH bands.
        hashes_per_bucket: Values of a signature in each band.
        seed: Of datasketch's permutations.

    Returns:
        The sketches.
    """
    num_perm = num_buckets * hashes_per_bucket
    bands = np.zeros((len(texts), num_buckets), np.uint64)
    exact, words = np.zeros(len(texts), np.uint64), np.zeros(len(texts), np.int64)
    is_long = np.fromiter((len(text) >= BATCH_CHARS for text in texts), bool, len(texts))
    short = np.flatnonzero(~is_long)
    for part, index in batches([texts[row] for row in short.tolist()]):
        rows = short[part]
        signature, exact[rows], words[rows] = _sketch_batch(index, shingle_words, num_perm, seed)
        bands[rows] = band_hashes(signature, num_buckets)
    for row in np.flatnonzero(is_long).tolist():
        signature, exact[row], words[row] = _sketch_long(texts[row], shingle_words, num_perm, seed)
        bands[row] = band_hashes(signature, num_buckets)
    wordless = words == 0
    bands[wordless] = mix(np.add.outer(exact[wordless], np.arange(num_buckets, dtype=np.uint64)))
    return Sketch(bands, exact, words)


def word_hashes(index: Index) -> tuple[UInt64s, Ints]:
    """Hash the words of a batch, which are the tokens that are no signs: the tokens' hashes are needed anyway.

    Args:
        index: Of the texts.

    Returns:
        Hashes of all texts end to end, [K], and where each text's begin, and the end, [N + 1].
    """
    tokens = index.tokens
    is_word = (index.kinds[tokens.start] & SIGN) == 0
    return index.token_hashes[is_word], running_sums(is_word)[tokens.offsets]


def shingle_hashes(hashes: UInt64s, offsets: Ints, shingle_words: int) -> tuple[UInt32s, Ints]:
    """Hash all shingles of a batch.

    Args:
        hashes: Of all words, as `word_hashes` has them.
        offsets: Where each text's begin, and the end, [N + 1].
        shingle_words: Words in a shingle; a shorter text is one shingle.

    Returns:
        Hashes of all texts end to end [H], and where each text's begin, and the end [N + 1]; a text without words
        has none.
    """
    counts = np.diff(offsets)
    lengths = np.where(counts > 0, np.maximum(1, counts - shingle_words + 1), 0)
    bounds = running_sums(lengths)
    first = np.arange(bounds[-1]) + np.repeat(offsets[:-1] - bounds[:-1], lengths)
    last = np.minimum(first + shingle_words, np.repeat(offsets[1:], lengths))
    return (run_hashes(hashes, first, last) >> np.uint64(32)).astype(np.uint32), bounds


def signatures(hashes: UInt32s, offsets: Ints, num_perm: int, seed: int) -> UInt32s:
    """Compute signatures from shingle hashes.

    Args:
        hashes: Of all texts end to end, [H].
        offsets: Where each text's begin, and the end, [N + 1].
        num_perm: Length of a signature.
        seed: Of datasketch's permutations (`affine32`).

    Returns:
        [N, num_perm]; all ones for a text without shingles, as datasketch has it.
    """
    factors, addends = _permutations(num_perm, seed)
    filled = np.flatnonzero(np.diff(offsets))
    starts, ends = offsets[filled], offsets[filled + 1]
    minima = np.full((num_perm, len(filled)), _EMPTY)
    mixed = _mix(hashes)
    buffer = np.empty((_BLOCK_PERMUTATIONS, _BLOCK_SHINGLES), np.uint32)
    for start in range(0, len(mixed), _BLOCK_SHINGLES):
        block = mixed[start : start + _BLOCK_SHINGLES]
        first = int(np.searchsorted(ends, start, side="right"))
        last = int(np.searchsorted(starts, start + len(block)))
        bounds = np.maximum(starts[first:last] - start, 0)
        for group in range(0, num_perm, _BLOCK_PERMUTATIONS):
            chosen = slice(group, group + _BLOCK_PERMUTATIONS)
            values = buffer[: len(factors[chosen]), : len(block)]  # [permutations, shingles], modulo 2^32
            np.multiply(block, factors[chosen], out=values)
            np.add(values, addends[chosen], out=values)
            found = minima[chosen, first:last]  # a text may lie in several blocks
            np.minimum(found, np.minimum.reduceat(values, bounds, axis=1), out=found)
    result = np.full((len(offsets) - 1, num_perm), _EMPTY)
    result[filled] = minima.T
    return result


def band_hashes(signature: UInt32s, num_buckets: int) -> UInt64s:
    """Hash each band of the signatures.

    Args:
        signature: [N, num_buckets * hashes_per_bucket].
        num_buckets: Bands.

    Returns:
        [N, num_buckets]; equal bands have equal hashes, those of two bands never meet but by chance.
    """
    rows = signature.reshape(len(signature), num_buckets, -1)
    hashed = np.broadcast_to(mix(np.arange(num_buckets, dtype=np.uint64)), rows.shape[:2])
    for place in range(rows.shape[2]):
        hashed = mix(hashed ^ rows[:, :, place])
    return np.ascontiguousarray(hashed)


def _sketch_batch(index: Index, shingle_words: int, num_perm: int, seed: int) -> tuple[UInt32s, UInt64s, Ints]:
    """Make signatures, exact hashes and counts of words."""
    hashes, offsets = word_hashes(index)
    exact = run_sums(index.token_hashes, index.tokens.offsets[:-1], index.tokens.offsets[1:])
    return signatures(*shingle_hashes(hashes, offsets, shingle_words), num_perm, seed), mix(exact), np.diff(offsets)


def _sketch_long(text: str, shingle_words: int, num_perm: int, seed: int) -> tuple[UInt32s, np.uint64, int]:
    """Do the same for one long text, with the memory of a piece."""
    signature = np.full((1, num_perm), _EMPTY)
    exact, words, tokens = 0, 0, 0
    carried = np.zeros(0, np.uint64)  # the last words before: shingles reach over the pieces' ends
    for start, end in pieces(text):
        index = Index([text[start:end]])
        hashes, _ = word_hashes(index)
        words += len(hashes)
        hashes = np.concatenate((carried, hashes))
        if len(hashes) >= shingle_words:
            signature = np.minimum(signature, _signature(hashes, shingle_words, num_perm, seed))
        carried = hashes[max(0, len(hashes) - shingle_words + 1) :]
        piece = run_sums(index.token_hashes, np.zeros(1, np.int64), index.tokens.offsets[1:])
        exact += int(piece[0]) * pow(BASE, tokens, 2**64)
        tokens += len(index.tokens)
    if 0 < words < shingle_words:
        signature = _signature(carried, shingle_words, num_perm, seed)
    return signature, mix(np.array([exact % 2**64], np.uint64))[0], words


def _signature(hashes: UInt64s, shingle_words: int, num_perm: int, seed: int) -> UInt32s:
    """Make the signature of one run of words."""
    return signatures(*shingle_hashes(hashes, np.array([0, len(hashes)]), shingle_words), num_perm, seed)


@functools.lru_cache(maxsize=8)
def _permutations(num_perm: int, seed: int) -> tuple[UInt32s, UInt32s]:
    """Take datasketch's factors and addends, [num_perm, 1] each."""
    from datasketch import MinHash  # not sooner: it loads SciPy's integration, a second that few workers need

    factors, addends = MinHash(num_perm=num_perm, seed=seed, scheme="affine32").permutations
    return factors[:, None], addends[:, None]


def _mix(values: UInt32s) -> UInt32s:
    """Spread 32-bit hashes (MurmurHash3's finaliser), as datasketch does before it permutes."""
    mixed = values.copy()
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(factor)
    mixed ^= mixed >> np.uint32(16)
    return mixed
