"""Where texts hold n-grams of evaluation sets, and what is done about it.

    evaluation sets ─▶ n-grams ─┐
    texts ──────────────────────┴─▶ hits (which item, where in the text) ─▶ drop | cut, and a report

As in the GPT-3 paper (Brown et al., 2020, appendix C) one n-gram of 13 words is a hit; what one is: `ngrams`. Texts are
searched once, for what the n-grams begin with; only what is found is compared in full.

Departures from the paper: the pieces of a text that is cut stay one document; that an n-gram found in more than 10
documents is common speech is an option, since it makes a document's fate depend on the rest of the corpus.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qwen_core.data.decontaminate.ngrams import Ngrams, lookup, weights_of, windows_of
from qwen_core.data.index import BATCH_CHARS, Index, Ints, batches, pieces, run_sums

_OVERLAP_CHARS = 2000  # of the pieces of a long text: an n-gram that is longer may be missed where two pieces meet
_TORN_BEGIN, _TORN_END = re.compile(r"\A\S{1,40}\s"), re.compile(r"\s\S{1,40}\Z")


@dataclass(frozen=True)
class Hits:
    """N-grams of evaluation sets found in texts.

    Attributes:
        text: Number of the text, [M], rising.
        start: First character of the n-gram in it, [M].
        end: Behind its last one, [M].
        ngram: Its place in `Ngrams`, [M].
        share_ratio: Share of each text's n-grams of full length that are hits, [N].
    """

    text: Ints
    start: Ints
    end: Ints
    ngram: Ints
    share_ratio: npt.NDArray[np.float64]

    @property
    def is_hit(self) -> npt.NDArray[np.bool_]:
        """Whether each text holds any, [N]."""
        return np.bincount(self.text, minlength=len(self.share_ratio)) > 0


def find_ngrams(texts: Sequence[str], ngrams: Ngrams) -> Hits:
    """Look for n-grams of evaluation sets in texts.

    Args:
        texts: Of any number and length.
        ngrams: Of the sets.

    Returns:
        What was found, and where.
    """
    cut, numbers, origins = _pieces(texts)
    columns: list[tuple[Ints, ...]] = [(np.zeros(0, np.int64),) * 4]
    counts = np.zeros((2, len(cut)), np.int64)
    for part, index in batches(cut):
        piece, start, end, ngram, counts[:, part] = _find_in(index, ngrams)
        columns.append((numbers[part][piece], start + origins[part][piece], end + origins[part][piece], ngram))
    text, start, end, ngram = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.lexsort((start, text))
    held, windows = (np.bincount(numbers, amount, minlength=len(texts)) for amount in counts)
    return Hits(text[order], start[order], end[order], ngram[order], held / np.maximum(windows, 1))


def count_documents(hits: Hits, ngrams: Ngrams) -> Ints:
    """Count the texts that hold each n-gram; the counts of all parts of a corpus may be added up.

    Args:
        hits: In some texts.
        ngrams: That were looked for.

    Returns:
        [G].
    """
    pairs = np.unique(np.stack((hits.text, hits.ngram)), axis=1)
    return np.bincount(pairs[1], minlength=len(ngrams.hashes))


def cut_hits(
    texts: Sequence[str], hits: Hits, margin_chars: int = 200, min_piece_chars: int = 200, max_pieces: int = 10
) -> list[str | None]:
    """Cut hits and what stands around them, as the GPT-3 paper does; the pieces stay one document.

    Args:
        texts: As `find_ngrams` saw them.
        hits: What it found.
        margin_chars: Cut before and behind each, and the word that would be torn.
        min_piece_chars: Shorter pieces are cut as well.
        max_pieces: A text that falls into more is given up.

    Returns:
        The texts; `None` where nothing is left, or too many pieces.
    """
    kept: list[str | None] = list(texts)
    bounds = np.searchsorted(hits.text, np.arange(len(texts) + 1))
    for number in np.flatnonzero(np.diff(bounds)).tolist():
        chosen = slice(bounds[number], bounds[number + 1])
        ranges = zip(hits.start[chosen].tolist(), hits.end[chosen].tolist(), strict=True)
        pieces_left = _around(texts[number], list(ranges), margin_chars)
        long = [piece for piece in pieces_left if len(piece) >= min_piece_chars]
        kept[number] = "\n\n".join(long) if long and len(pieces_left) <= max_pieces else None
    return kept


def report(hits: Hits, ngrams: Ngrams) -> dict[str, dict[str, dict[str, int]]]:
    """Count what was hit, by evaluation set; reports of several parts of a corpus can be added up number by number.

    Args:
        hits: In some texts.
        ngrams: That were looked for.

    Returns:
        By set: `counts` (`documents` with a hit), and `items`: documents by the name of the item.
    """
    sizes = np.diff(ngrams.offsets)[hits.ngram]
    text = np.repeat(hits.text, sizes)
    place = np.arange(sizes.sum()) + np.repeat(ngrams.offsets[hits.ngram] - (np.cumsum(sizes) - sizes), sizes)
    texts, members = np.unique(np.stack((text, ngrams.members[place])), axis=1)
    found: dict[str, dict[str, dict[str, int]]] = {}
    documents: dict[str, set[int]] = {}
    for number, member in zip(texts.tolist(), members.tolist(), strict=True):
        evaluation, name = ngrams.items[member]
        items = found.setdefault(evaluation, {"counts": {}, "items": {}})["items"]
        items[name] = items.get(name, 0) + 1
        documents.setdefault(evaluation, set()).add(number)
    for evaluation, held in documents.items():
        found[evaluation]["counts"] = {"documents": len(held)}
    return found


def add_reports(reports: Iterable[dict[str, dict[str, dict[str, int]]]]) -> dict[str, dict[str, dict[str, int]]]:
    """Add up reports of the parts of a corpus.

    Args:
        reports: Of parts that share no document.

    Returns:
        The report of all; items by falling number of documents.
    """
    total: dict[str, dict[str, Counter[str]]] = {}
    for one in reports:
        for evaluation, tables in one.items():
            for name, counts in tables.items():
                total.setdefault(evaluation, {}).setdefault(name, Counter()).update(counts)
    return {
        evaluation: {name: dict(counts.most_common()) for name, counts in tables.items()}
        for evaluation, tables in sorted(total.items())
    }


def _pieces(texts: Sequence[str]) -> tuple[Sequence[str], Ints, Ints]:
    """Cut long texts; return all pieces, the text of each, and where in it the piece begins."""
    if max(map(len, texts), default=0) < BATCH_CHARS:
        return texts, np.arange(len(texts)), np.zeros(len(texts), np.int64)
    cut, numbers, origins = [], [], []
    for number, text in enumerate(texts):
        for start, end in pieces(text, _OVERLAP_CHARS):
            cut.append(text if end - start == len(text) else text[start:end])
            numbers.append(number)
            origins.append(start)
    return cut, np.array(numbers, np.int64), np.array(origins, np.int64)


def _find_in(index: Index, ngrams: Ngrams) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Look for n-grams in one batch.

    Returns:
        Piece, first character in it, last one, n-gram [M]; of each piece hits and n-grams of full length [2, N].
    """
    words, weights = index.words, weights_of(index, ngrams.words, ngrams.characters)
    first, last = windows_of(index, weights, ngrams.min_words * ngrams.characters)
    begun = first[ngrams.maybe(run_sums(index.word_hashes, first, last))]
    limits = words.offsets[np.searchsorted(words.offsets, begun, side="right")]
    columns: list[tuple[Ints, ...]] = [(np.zeros(0, np.int64),) * 4]
    for length in ngrams.lengths:
        end = np.searchsorted(weights, weights[begun] + length * ngrams.characters)
        first, last = begun[end <= limits], end[end <= limits]
        found, ngram = lookup(ngrams.hashes, run_sums(index.word_hashes, first, last))
        columns.append((first[found], last[found], ngram, np.full(len(found), length)))
    first, last, ngram, words_in_all = (np.concatenate(column) for column in zip(*columns, strict=True))
    piece = np.searchsorted(words.offsets, first, side="right") - 1
    full = np.bincount(piece[words_in_all == ngrams.words], minlength=len(index))
    behind = np.searchsorted(weights, weights[words.offsets[1:]] - ngrams.words * ngrams.characters, side="right")
    counts = np.stack((full, np.maximum(0, behind - words.offsets[:-1])))
    base = index.offsets[piece]
    return piece, words.start[first] - base, words.end[last - 1] - base, ngram, counts


def _around(text: str, ranges: list[tuple[int, int]], margin: int) -> list[str]:
    """Return what is left between ranges and their margins, without the words that a margin has torn."""
    left, end = [], 0
    for start, stop in [*ranges, (len(text) + margin, 0)]:
        if start - margin > end:
            piece = text[end : start - margin]
            piece = _TORN_BEGIN.sub("", piece) if end else piece
            piece = _TORN_END.sub("", piece) if start - margin < len(text) else piece
            left.append(piece.strip())
        end = max(end, stop + margin)
    return [piece for piece in left if piece]
