"""py3langid's naive Bayes over byte n-grams (Lui & Baldwin, 2012), for whole batches at once.

bytes ─▶ windows of 64 ─▶ the automaton steps all windows one byte on ─▶ n-grams seen [texts, n-grams] ─▶ × weights

The model is the file inside the py3langid package and the scores are those of its `classify`, but for Unicode
normalisation: texts are taken as they are, for `ingest` has put them into NFC. The automaton's state is the longest
suffix that starts an n-gram; n-grams are at most 6 bytes long, so a window that starts 6 bytes early arrives in the
right state and windows do not have to wait for each other.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array

_WINDOW = 64
_WARM_UP = 6  # bytes: the longest n-gram of the model
_OUTSIDE = 256  # a byte value beyond the text: leads back to the start, where no n-gram ends
_BATCH_BYTES = 500_000  # bounds the memory of one pass, about 60 bytes for each

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Model:
    """What the bundled model holds."""

    moves: npt.NDArray[np.uint64]
    """For state and byte: n-gram that ends there plus one (high half), and the next state's row (low half)."""
    start: int
    """Row of the first state."""
    weights: Floats
    """Log probability of each n-gram in each class [n-grams, classes]."""
    bias: Floats
    """Of each class [classes]."""
    classes: npt.NDArray[np.str_]
    """Language of each class; some languages have two."""


@functools.cache
def load_model() -> Model:
    """Load the bundled model, once for each process.

    Returns:
        The model.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    found = LanguageIdentifier.from_model_file(MODEL_FILE)
    next_state, ends = np.asarray(found.tk_nextmove), np.asarray(found.tk_output)
    rows = np.asarray(found.tk_row).astype(np.uint64) * np.uint64(_OUTSIDE + 1)
    moves = np.full((len(next_state) // 256, _OUTSIDE + 1), rows[0], np.uint64)
    packed = (ends[next_state] + 1).astype(np.uint64) << np.uint64(32) | rows[next_state]
    moves[:, :_OUTSIDE] = packed.reshape(-1, _OUTSIDE)
    return Model(
        moves.ravel(),
        int(rows[0]),
        found.nb_ptc.astype(np.float32),
        found.nb_pc.astype(np.float32),
        np.array(found.nb_classes),
    )


def class_scores(data: npt.NDArray[np.uint8], starts: Ints, ends: Ints, owners: Ints, num_texts: int) -> Floats:
    """Score texts for each class of the model.

    Args:
        data: UTF-8 bytes.
        starts: Where each piece of a text begins.
        ends: Where it ends.
        owners: The text of each piece, ascending.
        num_texts: Number of texts.

    Returns:
        Log posteriors, not normalised [texts, classes].
    """
    scores = np.empty((num_texts, len(load_model().classes)), np.float32)
    running = np.cumsum(ends - starts)
    first = 0
    while first < num_texts:
        begun = np.searchsorted(owners, first)
        limit = _BATCH_BYTES + (running[begun - 1] if begun else 0)
        over = np.searchsorted(running, limit)
        last = max(first + 1, int(owners[over]) if over < len(owners) else num_texts)
        part = slice(begun, np.searchsorted(owners, last))
        scores[first:last] = _score(data, starts[part], ends[part], owners[part] - first, last - first)
        first = last
    return scores


def _score(data: npt.NDArray[np.uint8], starts: Ints, ends: Ints, owners: Ints, num_texts: int) -> Floats:
    model = load_model()
    grams, pieces = _walk(model, data, starts, ends)
    seen = coo_array(
        (np.ones(len(grams), np.float32), (owners[pieces], grams)), shape=(num_texts, len(model.weights))
    ).tocsr()
    seen.sum_duplicates()
    np.log1p(seen.data, out=seen.data)
    return np.asarray(seen @ model.weights + model.bias, np.float32)


def _walk(model: Model, data: npt.NDArray[np.uint8], starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Find the n-grams of each piece.

    Returns:
        N-grams and the piece of each, in the order of pieces.
    """
    windows = -(-(ends - starts) // _WINDOW)
    pieces = np.repeat(np.arange(len(starts)), windows)
    begins = starts[pieces] + (np.arange(len(pieces)) - np.repeat(np.cumsum(windows) - windows, windows)) * _WINDOW
    floors, ceilings = starts[pieces], ends[pieces]
    rows = np.full(len(pieces), model.start, np.int64)
    found = np.empty((_WINDOW, len(pieces)), np.int32)
    for step in range(-_WARM_UP, _WINDOW):
        at = begins + step
        inside = (at >= floors) & (at < ceilings)
        values = np.where(inside, data.take(at, mode="clip"), _OUTSIDE)
        moved = model.moves.take(rows + values)
        rows = (moved & np.uint64(0xFFFFFFFF)).astype(np.int64)
        if step >= 0:
            found[step] = moved >> np.uint64(32)
    by_piece = found.T
    hit = by_piece > 0
    return by_piece[hit].astype(np.int64) - 1, np.repeat(pieces, hit.sum(1))
