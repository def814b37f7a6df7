"""N-grams of evaluation sets, as hashes that texts can be searched for.

    items ─▶ passages ─▶ words ─▶ windows of 13 words ─▶ hashes, and the items that hold each

An n-gram is 13 words as in the GPT-3 paper (Brown et al., 2020, appendix C), in lower case and without punctuation.
Scripts without spaces have no words to count; there it is 20 characters, which is about as many words, and long enough:
between unrelated Chinese collections of a thousand documents each no 16 characters were shared by chance, but some 12
were. A text may mix both: a word weighs 1/13, such a character 1/20, and an n-gram runs from each word until it weighs
1, so that it is as long in the text as in the item. A passage that is shorter is looked for by 8 to 12 words, what fits
its length: 8 is the least that the paper uses.

Departures from the paper: n is the same for all evaluation sets, and n-grams that are mostly numbers are left out, for
tables and rows of figures hold them by chance.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from qwen_core.data.characters import LETTER, UNSPACED, UInt64s
from qwen_core.data.decontaminate.evaluation import Item
from qwen_core.data.index import Index, Ints, batches, run_sums, running_sums

_SLOTS_FOR_EACH = 16  # of the table that turns most windows away: one in so many has to be looked up


@dataclass(frozen=True)
class Ngrams:
    """The n-grams of evaluation sets.

    Attributes:
        hashes: Rising, [G].
        beginnings: Hashes of their first `min_words`, rising, [B].
        offsets: Items of n-gram g are members[offsets[g] : offsets[g + 1]], [G + 1].
        members: Places in `items`.
        items: Set and name of each item.
        words: Words of an n-gram.
        characters: The same in scripts without spaces.
        min_words: Words of the shortest n-gram that may occur.
        lengths: Words of the n-grams that occur: `words`, and of shorter items fewer.
        unchecked: Items without a passage that is long enough.
    """

    hashes: UInt64s
    beginnings: UInt64s
    offsets: Ints
    members: Ints
    items: tuple[tuple[str, str], ...]
    words: int
    characters: int
    min_words: int
    lengths: tuple[int, ...]
    unchecked: tuple[tuple[str, str], ...]

    @functools.cached_property
    def digest(self) -> str:
        """Of all that decides what is found and how it is told."""
        told = hashlib.blake2b(repr((self.items, self.words, self.characters, self.min_words)).encode(), digest_size=16)
        for column in (self.hashes, self.offsets, self.members):
            told.update(column.tobytes())
        return told.hexdigest()

    @functools.cached_property
    def slots(self) -> npt.NDArray[np.bool_]:
        """Whether any beginning's hash has these leading bits."""
        table = np.zeros(1 << max(8, (_SLOTS_FOR_EACH * len(self.beginnings)).bit_length()), bool)
        table[self.beginnings >> _shift(table)] = True
        return table

    def maybe(self, hashes: UInt64s) -> Ints:
        """Find windows of `min_words` with which an n-gram begins.

        Args:
            hashes: Of windows, [W].

        Returns:
            Places of such, rising.
        """
        likely = np.flatnonzero(self.slots[hashes >> _shift(self.slots)])
        return likely[lookup(self.beginnings, hashes[likely])[0]]


def build_ngrams(
    items: Sequence[Item], words: int = 13, characters: int = 20, min_words: int = 8, min_letter_ratio: float = 0.5
) -> Ngrams:
    """Collect the n-grams of evaluation sets.

    Args:
        items: Of all sets.
        words: Words of an n-gram.
        characters: The same in scripts without spaces.
        min_words: A passage must have so many words, or as much in characters, to be looked for; up to `words`.
        min_letter_ratio: Of an n-gram's words so many must begin with a letter, 0 to 1.

    Returns:
        The n-grams, ready for `find_ngrams`.
    """
    owner = np.repeat(np.arange(len(items)), [len(item.passages) for item in items])
    passages = [passage for item in items for passage in item.passages]
    sizes = (words, characters, min(min_words, words))
    found = [_collect(index, owner[part], sizes, min_letter_ratio) for part, index in batches(passages)]
    grams, beginnings, members, lengths = np.concatenate([np.zeros((4, 0), np.uint64), *found], axis=1)
    pairs = np.unique(np.stack((grams, members)), axis=1)
    distinct, first = np.unique(pairs[0], return_index=True)
    names = tuple((item.evaluation, item.name) for item in items)
    checked = set(members.tolist())
    return Ngrams(
        hashes=distinct,
        beginnings=np.unique(beginnings),
        offsets=np.append(first, pairs.shape[1]).astype(np.int64),
        members=pairs[1].astype(np.int64),
        items=names,
        words=words,
        characters=characters,
        min_words=sizes[2],
        lengths=tuple(np.unique(lengths).tolist()),
        unchecked=tuple(name for number, name in enumerate(names) if number not in checked),
    )


def without_common(ngrams: Ngrams, documents: Ints, max_documents: int) -> Ngrams:
    """Leave out n-grams that many documents hold: common speech, and no leak (GPT-3: more than 10).

    Args:
        ngrams: Of the sets.
        documents: Documents with each, over the whole corpus, [G].
        max_documents: In more of them an n-gram is common.

    Returns:
        The others.
    """
    rare = documents <= max_documents
    sizes = np.diff(ngrams.offsets)
    offsets = running_sums(sizes[rare])
    return replace(ngrams, hashes=ngrams.hashes[rare], offsets=offsets, members=ngrams.members[np.repeat(rare, sizes)])


def weights_of(index: Index, words: int, characters: int) -> Ints:
    """Sum up weights of words in whole numbers: an n-gram weighs `words` times `characters`.

    Args:
        index: Of texts.
        words: Words of an n-gram.
        characters: The same in scripts without spaces.

    Returns:
        From the batch's beginning to each word, and behind the last, [K + 1].
    """
    unspaced = (index.kinds[index.words.start] & UNSPACED) != 0
    return running_sums(np.where(unspaced, words, characters))


def windows_of(index: Index, weights: Ints, weight: int) -> tuple[Ints, Ints]:
    """Find where n-grams begin and end that weigh at least so much, and lie in one text.

    Args:
        index: Of texts.
        weights: As `weights_of` gave them.
        weight: Of a window.

    Returns:
        First word of each window, rising [W], and behind its last word [W].
    """
    count, each = len(weights) - 1, int(weights[1:2].sum())
    if weights[-1] == count * each:  # all words weigh the same, for there are but two weights
        last = np.arange(count) - (-weight // max(1, each))
    else:
        last = np.searchsorted(weights, weights[:-1] + weight)
    first = np.flatnonzero(last <= np.repeat(index.words.offsets[1:], index.words.counts))
    return first, last[first]


def lookup(table: UInt64s, hashes: UInt64s) -> tuple[Ints, Ints]:
    """Look hashes up in a table.

    Args:
        table: Rising.
        hashes: Any, [H].

    Returns:
        Which of them stand in the table, rising [M], and where [M].
    """
    place = np.searchsorted(table, hashes)
    place[place == len(table)] = 0
    found = np.flatnonzero(table[place] == hashes) if len(table) else np.zeros(0, np.int64)
    return found, place[found]


def _collect(index: Index, members: Ints, sizes: tuple[int, int, int], min_letter_ratio: float) -> UInt64s:
    """List the n-grams of passages: hash, hash of the beginning, item, words, [4, G]."""
    words, characters, min_words = sizes
    weights, ends = weights_of(index, words, characters), index.words.offsets
    whole = np.minimum((weights[ends[1:]] - weights[ends[:-1]]) // characters, words)  # of each passage, in words
    letters = _letters(index)
    rows = [np.zeros((4, 0), np.uint64)]
    for length in range(min_words, words + 1):
        first, last = windows_of(index, weights, length * characters)
        passage = np.searchsorted(ends, first, side="right") - 1
        fitting = (whole[passage] == length) & (letters[last] - letters[first] >= min_letter_ratio * (last - first))
        first, last = first[fitting], last[fitting]
        begun = np.searchsorted(weights, weights[first] + min_words * characters)
        hashes = [run_sums(index.word_hashes, first, end) for end in (last, begun)]
        item = members[passage[fitting]].astype(np.uint64)
        rows.append(np.stack((*hashes, item, np.full(len(item), length, np.uint64))))
    return np.concatenate(rows, axis=1)


def _shift(table: npt.NDArray[np.bool_]) -> np.uint64:
    return np.uint64(65 - len(table).bit_length())


def _letters(index: Index) -> Ints:
    """Count words that begin with a letter, from the batch's beginning, [K + 1]."""
    letters = (index.kinds[index.words.start] & (LETTER | UNSPACED)) != 0
    return running_sums(letters)
