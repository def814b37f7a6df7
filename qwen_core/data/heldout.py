"""The held-out set while it is gathered: of each language and source the documents with the lowest draws, and no more.

    documents of a file ─▶ add ─▶ lowest draws, up to the limit ─▶ merge over files ─▶ pack each group ─▶ one table

What is kept of a group reaches the limit once, so memory follows the number of groups and not the corpus; and since
only draws decide, it does not matter how the corpus lies in files or which of them is ready first.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qwen_core.data.mix import Cell, Ints, UInt64s
from qwen_core.data.pack import pack, spread
from qwen_core.data.packed import packed_schema

Tokens = npt.NDArray[np.uint32]


class HeldOut:
    """Documents with the lowest draws of each group."""

    def __init__(self, limit_tokens: int) -> None:
        """Start empty.

        Args:
            limit_tokens: A group stops where its documents hold so many tokens.
        """
        self.limit_tokens = limit_tokens
        self.groups: dict[Cell, list[tuple[int, Tokens]]] = {}
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
        is_full = sum(len(tokens) for _, tokens in kept) >= self.limit_tokens
        return np.asarray(draw < np.uint64(kept[-1][0])) if is_full else np.ones(len(draw), dtype=bool)

    def add(self, group: Cell, draw: UInt64s, tokens: Tokens, lengths: Ints) -> None:
        """Add documents of a group.

        Args:
            group: Language and source.
            draw: Of the documents, [N].
            tokens: Of all of them, one document behind another, [T].
            lengths: Tokens of each, [N].
        """
        documents = np.split(tokens, lengths.cumsum()[:-1]) if len(lengths) else []
        self._keep(group, list(zip(draw.tolist(), documents, strict=True)))

    def merge(self, other: HeldOut) -> None:
        """Add what another file held out.

        Args:
            other: With the same limit.
        """
        self.bytes += other.bytes
        for group, members in other.groups.items():
            self._keep(group, members)

    def pack(self, max_sequences: int, max_seq_len: int, separator: int, token_bytes: Ints) -> pa.Table:
        """Pack each group by itself and share the sequences out over the groups.

        Documents are laid end to end whatever the method of the training split, so that runs compare.

        Args:
            max_sequences: In all.
            max_seq_len: Tokens in a sequence.
            separator: `<|endoftext|>`.
            token_bytes: UTF-8 bytes of each token, [V].

        Returns:
            Rows of `packed.packed_schema`, sorted by group.
        """
        tables = {}
        for (language, source), members in sorted(self.groups.items()):
            tokens = np.concatenate([ids for _, ids in members])
            lengths = np.array([len(ids) for _, ids in members], dtype=np.int64)
            tables[language, source] = pack(
                tokens,
                lengths,
                max_seq_len=max_seq_len,
                separator=separator,
                token_bytes=token_bytes,
                language=language,
                source=source,
            ).table
        granted = spread({group: table.num_rows for group, table in tables.items()}, max_sequences, self.bytes)
        kept = [table.slice(0, granted[group]) for group, table in tables.items()]
        return pa.concat_tables(kept).combine_chunks() if kept else packed_schema(max_seq_len).empty_table()

    def _keep(self, group: Cell, members: list[tuple[int, Tokens]]) -> None:
        if not members:
            return
        found = sorted(self.groups.get(group, []) + members, key=lambda member: member[0])
        before = np.cumsum([0] + [len(tokens) for _, tokens in found[:-1]])
        self.groups[group] = found[: int((before < self.limit_tokens).sum())]
