"""The held-out set: gathered once from a corpus, kept as texts, and packed with any tokenizer.

    documents of a file ─▶ add ─▶ lowest draws, up to the limit ─▶ merge over files ─▶ chosen ─▶ table of texts
    table of texts ─▶ bands of near duplicates, which are kept out of training for as long as the set is used

What is kept of a group reaches the limit once, so memory follows the number of groups and not the corpus; and since
only draws decide, it does not matter how the corpus lies in files or which of them is ready first.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qwen_core.data.characters import mix
from qwen_core.data.minhash import Sketch, sketch
from qwen_core.data.mix import Cell, Ints, UInt64s
from qwen_core.data.pack import spread

Tokens = npt.NDArray[np.uint32]
Fit = Callable[[str, Tokens, int], str]
"""Cuts a text, whose tokens are given too, to at most so many tokens."""

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("language", pa.string()),
        ("source", pa.string()),
        ("chars", pa.int64()),
    ]
)
"""The held-out documents, whole; the first `chars` characters of each are measured."""

_BAND_STEP = 0x9E3779B97F4A7C15


class Member(NamedTuple):
    """A held-out document: its draw, its tokens with the separator, its id and its text."""

    draw: int
    tokens: Tokens
    id: str
    text: str


class HeldOut:
    """Documents with the lowest draws of each group."""

    def __init__(self, limit_tokens: int) -> None:
        """Start empty.

        Args:
            limit_tokens: A group stops where its documents hold so many tokens.
        """
        self.limit_tokens = limit_tokens
        self.groups: dict[Cell, list[Member]] = {}
        self.bytes: Counter[Cell] = Counter()
        """Text of all documents that were held out, kept or not."""

    def wanted(self, group: Cell, draw: UInt64s) -> npt.NDArray[np.bool_]:
        """Tell which documents could still be kept, so that the others need not be encoded.

        Args:
            group: Language and source.
            draw: Of the documents, [N].

        Returns:
            [N].
        """
        kept = self.groups.get(group, [])
        is_full = sum(len(member.tokens) for member in kept) >= self.limit_tokens
        return np.asarray(draw < np.uint64(kept[-1].draw)) if is_full else np.ones(len(draw), dtype=bool)

    def add(
        self, group: Cell, draw: UInt64s, tokens: Tokens, lengths: Ints, ids: Sequence[str], texts: Sequence[str | None]
    ) -> None:
        """Add documents of a group.

        Args:
            group: Language and source.
            draw: Of the documents, [N].
            tokens: Of all of them, one document behind another, [T].
            lengths: Tokens of each, [N].
            ids: Of each, [N].
            texts: Of each, [N].
        """
        documents = np.split(tokens, lengths.cumsum()[:-1]) if len(lengths) else []
        found = zip(draw.tolist(), documents, ids, [text or "" for text in texts], strict=True)
        self._keep(group, [Member(*each) for each in found])

    def merge(self, other: HeldOut) -> None:
        """Add what another file held out.

        Args:
            other: With the same limit.
        """
        self.bytes += other.bytes
        for group, members in other.groups.items():
            self._keep(group, members)

    def chosen(self, max_sequences: int, max_seq_len: int, fit: Fit) -> pa.Table:
        """Share the sequences out over the groups, and take the documents that fill them; the last one is cut.

        Args:
            max_sequences: In all.
            max_seq_len: Tokens in a sequence.
            fit: Cuts a text.

        Returns:
            Rows of `SCHEMA`, sorted by group, in the order of the draws.
        """
        needed = {
            group: -(-sum(len(member.tokens) for member in members) // max_seq_len)
            for group, members in sorted(self.groups.items())
        }
        granted = spread(needed, max_sequences, self.bytes)
        rows: list[dict[str, Any]] = []
        for group, count in granted.items():
            room = count * max_seq_len
            for member in self.groups[group]:
                if room < 2:  # a token and the separator
                    break
                text = member.text if len(member.tokens) <= room else fit(member.text, member.tokens, room - 1)
                room -= len(member.tokens)
                if text:
                    told = {"language": group[0], "source": group[1], "chars": len(text)}
                    rows.append({"id": member.id, "text": member.text, **told})
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def _keep(self, group: Cell, members: list[Member]) -> None:
        if not members:
            return
        found = sorted(self.groups.get(group, []) + members, key=lambda member: member.draw)
        before = np.cumsum([0] + [len(member.tokens) for member in found[:-1]])
        self.groups[group] = found[: int((before < self.limit_tokens).sum())]


def digest_of(heldout: pa.Table) -> str:
    """Hash a held-out set: two of one digest hold the same texts.

    Args:
        heldout: Rows of `SCHEMA`.

    Returns:
        Sixteen hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=8)
    for row in heldout.select(SCHEMA.names).to_pylist():
        for value in row.values():
            data = str(value).encode(errors="surrogatepass")
            digest.update(f"{len(data)}\0".encode() + data)
    return digest.hexdigest()


def sizes_of(heldout: pa.Table) -> list[dict[str, Any]]:
    """Count what is measured, by language and source.

    Args:
        heldout: Rows of `SCHEMA`.

    Returns:
        `language`, `source`, `documents`, `bytes` of each group.
    """
    groups: dict[Cell, list[int]] = {}
    for row in heldout.to_pylist():
        counted = groups.setdefault((row["language"], row["source"]), [0, 0])
        counted[0] += 1
        counted[1] += len(row["text"][: row["chars"]].encode(errors="surrogatepass"))
    return [
        {"language": language, "source": source, "documents": documents, "bytes": size}
        for (language, source), (documents, size) in sorted(groups.items())
    ]


class Likeness:
    """Recognises the documents of a held-out set, and near duplicates of them, as `dedup` would."""

    def __init__(self, heldout: pa.Table, settings: Mapping[str, int]) -> None:
        """Sketch the set.

        Args:
            heldout: Rows of `SCHEMA`.
            settings: `shingle_words`, `num_buckets`, `hashes_per_bucket`, `seed`, as `dedup` has them.
        """
        self._settings = dict(settings)
        self._ids = set(heldout["id"].to_pylist())
        texts = heldout["text"].to_pylist()
        self._keys = np.unique(_keys(sketch(texts, **self._settings))) if texts else np.zeros(0, np.uint64)

    def is_like(self, ids: Sequence[str], texts: Sequence[str | None]) -> npt.NDArray[np.bool_]:
        """Tell which documents must not be trained on.

        Args:
            ids: Of the documents, [N].
            texts: Of the documents, [N].

        Returns:
            [N].
        """
        same = np.array([each in self._ids for each in ids], bool)
        if not len(texts) or not len(self._keys):
            return same
        keys = _keys(sketch([text or "" for text in texts], **self._settings))
        return np.asarray(same | np.isin(keys, self._keys).any(1))


def _keys(found: Sketch) -> UInt64s:
    """Bring exact hash and bands into one number space, so that two bands never meet, [N, 1 + num_buckets]."""
    columns = np.column_stack((found.exact, found.bands))
    steps = np.array([place * _BAND_STEP % 2**64 for place in range(columns.shape[1])], np.uint64)
    return mix(columns + steps)
