"""Best-fit packing: whole documents into sequences, so that as few as possible are cut.

    documents ─▶ cut where longer than a sequence ─▶ pieces, longest first ─▶ the fullest sequence that has room

After Ding et al., 2024 ("Fewer Truncations Improve Language Modeling"). They search the room left in each sequence by
a segment tree, one piece at a time. We depart: pieces of one length are placed together, by counting, for a best-fit
search would put them into the same sequence until it is full, then into the next. The rows come out as full as one by
one (among equally full ones another may be chosen), and the work falls from one step for each piece to one for each
pair of length and room that meet.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def cut(lengths: Ints, max_seq_len: int) -> tuple[Ints, Ints]:
    """Cut documents into pieces that fit a sequence: full ones, and what is left.

    Args:
        lengths: Tokens of each document, from 1, [N].
        max_seq_len: Tokens in a sequence.

    Returns:
        Tokens of each piece, and the number of its document, both [P], in the documents' order.
    """
    counts = -(-lengths // max_seq_len)
    document = np.repeat(np.arange(len(lengths)), counts)
    pieces = np.full(len(document), max_seq_len, dtype=np.int64)
    last = counts.cumsum() - 1
    pieces[last] = lengths - (counts - 1) * max_seq_len
    return pieces, document


def best_fit(pieces: Ints, max_seq_len: int) -> Ints:
    """Give each piece a sequence: longest first, each into the fullest that has room, else into a new one.

    Args:
        pieces: Tokens of each, 1 to `max_seq_len`, [P].
        max_seq_len: Tokens in a sequence.

    Returns:
        The sequence of each piece, from 0, numbered by the first piece in each, [P].
    """
    order = np.argsort(-pieces, kind="stable")
    counts = np.bincount(pieces, minlength=max_seq_len + 1)
    rooms = _Rooms(max_seq_len)
    placed = [rooms.place(int(length), int(counts[length])) for length in np.flatnonzero(counts)[::-1]]
    sequence = np.empty(len(pieces), dtype=np.int64)
    sequence[order] = np.concatenate(placed) if placed else np.zeros(0, np.int64)
    # Numbered anew by the first piece, so that the rows keep the documents' shuffled order and not their lengths'.
    _, first, members = np.unique(sequence, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[members]


class _Rooms:
    """Sequences by the tokens that still fit into them."""

    def __init__(self, max_seq_len: int) -> None:
        self.max_seq_len = max_seq_len
        self.made = 0
        self.filled = np.zeros(max_seq_len + 1, dtype=bool)  # which rooms have sequences
        self.sequences: dict[int, list[int]] = {}

    def place(self, length: int, count: int) -> Ints:
        """Place pieces of one length; return their sequences, in order."""
        placed = []
        for room in (np.flatnonzero(self.filled[length:]) + length).tolist():
            if not count:
                break
            each = room // length
            taken = self._take(room, -(-count // each))
            placed.append(self._put(taken, room, length, count))
            count -= len(placed[-1])
        if count:
            made = -(-count // (self.max_seq_len // length))
            fresh = list(range(self.made, self.made + made))
            self.made += made
            placed.append(self._put(fresh, self.max_seq_len, length, count))
        return np.concatenate(placed)

    def _take(self, room: int, wanted: int) -> list[int]:
        """Take up to so many sequences of a room, the first made first."""
        have = self.sequences[room]
        taken, left = have[:wanted], have[wanted:]
        self.sequences[room] = left
        self.filled[room] = bool(left)
        return taken

    def _put(self, taken: list[int], room: int, length: int, count: int) -> Ints:
        """Fill sequences one after another with up to `count` pieces; shelve each by the room that it has left."""
        each = room // length
        count = min(count, len(taken) * each)
        full, rest = divmod(count, each)
        self._shelve(taken[:full], room - each * length)
        if rest:
            self._shelve(taken[full : full + 1], room - rest * length)
        return np.repeat(np.asarray(taken, dtype=np.int64), each)[:count]

    def _shelve(self, taken: list[int], room: int) -> None:
        if taken and room:
            self.sequences.setdefault(room, []).extend(taken)
            self.filled[room] = True
