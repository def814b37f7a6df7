"""Rendered conversations as micro-batches: one a row, padded, or several packed into a row.

    Arrow file ─▶ lengths ─▶ rows: one conversation each, or best fit ─▶ take ─▶ scatter ─▶ [B, S]

Packed conversations do not see each other (`segment_ids`), and their positions start anew, so each has the losses that
it has alone. What shares a row follows from the data alone; the order of rows is the loop's, from seed and epoch.
Tensors are made from Arrow's buffers by numpy: no token becomes a Python object.

Legend: N conversations, B rows of a micro-batch, M conversations in them, T tokens of those, S tokens of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from qwen_core.data.bestfit import best_fit
from qwen_core.errors import ArtifactError
from qwen_core.model import IGNORE
from qwen_core.parallel.engine import Batch

Ints = npt.NDArray[np.int64]
PADDING = -1
"""Segment of what no model should count, such as a router for its experts' load."""


def read_table(path: str) -> pa.Table:
    """Map an Arrow file.

    Args:
        path: Local Arrow IPC file.

    Returns:
        Its table.

    Raises:
        ArtifactError: It is missing, cut off or of another kind.
    """
    try:
        return pa.ipc.open_file(pa.memory_map(path)).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise ArtifactError(
            f"{path} cannot be read as an Arrow file ({error}): it is missing, cut off or of another kind. Delete its "
            f"artifact's folder and run the stage that makes it again"
        ) from error


class Conversations:
    """The conversations of one split, in rows."""

    def __init__(self, table: pa.Table, packed_seq_len: int | None = None, is_by_length: bool = False) -> None:
        """Lay the rows out.

        Args:
            table: With `input_ids` and `labels_mask`, lists of equal length; `id` and `language` where they are known.
            packed_seq_len: Tokens of a row at most, for packing; `None` gives each conversation a row of its own.
            is_by_length: Without packing: rows in the order of their length, so that batches hold little padding.

        Raises:
            ArtifactError: There is no conversation, or one is longer than a row.
        """
        if not table.num_rows:
            raise ArtifactError("no conversations: the 'instruct' artifact has none for this split")
        self.table = table
        self.lengths: Ints = pc.list_value_length(table["input_ids"]).to_numpy().astype(np.int64)
        self.is_packed = packed_seq_len is not None
        if packed_seq_len is None:
            row = np.arange(len(self.lengths))
            if is_by_length:
                row[np.argsort(self.lengths, kind="stable")] = np.arange(len(row))
        else:
            longest = int(self.lengths.max())
            if longest > packed_seq_len:
                raise ArtifactError(
                    f"a conversation of {longest} tokens does not fit a packed row of {packed_seq_len}: raise "
                    f"sft.packed_seq_len, or lower instruct.max_seq_len"
                )
            row = best_fit(self.lengths, packed_seq_len)
        self._order: Ints = np.argsort(row, kind="stable")  # conversations, row by row
        self._bounds: Ints = np.concatenate([[0], np.bincount(row).cumsum()])
        sizes = np.add.reduceat(self.lengths[self._order], self._bounds[:-1])
        # All packed batches have one shape, whichever rows they hold: nothing is compiled or laid out anew.
        self._width = int(sizes.max()) if self.is_packed else None
        self.fill_ratio = float(self.lengths.sum() / (len(self) * sizes.max()))

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._bounds) - 1

    def batch(self, indices: Sequence[int], groups: Ints | None = None) -> Batch:
        """Read rows.

        Args:
            indices: Which ones, in order; repeats are allowed.
            groups: [N], a number of each conversation, told of each token as `extras["group"]` (padding has 0).

        Returns:
            The micro-batch; its count is that of the tokens that are learnt.
        """
        members, row, number = self._members(indices)
        rows = self.table.select(["input_ids", "labels_mask"]).take(pa.array(members))
        ids = rows["input_ids"].combine_chunks().flatten().to_numpy()  # [T]
        is_learnt = rows["labels_mask"].combine_chunks().flatten().to_numpy(zero_copy_only=False)  # [T]
        sizes = self.lengths[members]  # [M]
        before = sizes.cumsum() - sizes  # [M], tokens before each conversation
        start = before - before[np.flatnonzero(number == 0)][row]  # [M], the same within its row
        shape = (len(indices), self._width or int((start + sizes).max()))
        at = (np.repeat(row * shape[1] + start - before, sizes) + np.arange(len(ids)),)  # [T], places in [B * S]
        input_ids = _spread(ids, at, shape, 0)
        labels = _spread(np.where(is_learnt, ids.astype(np.int64), IGNORE), at, shape, IGNORE)
        labels.reshape(-1)[row * shape[1] + start] = IGNORE  # nothing in its conversation stands before it
        segments = None
        if self.is_packed or len(ids) < input_ids.size:  # without padding plain causal attention is right, and faster
            segments = _spread(np.repeat(number, sizes), at, shape, PADDING)
        extras = (
            {}
            if groups is None
            else {"group": torch.from_numpy(_spread(np.repeat(groups[members], sizes), at, shape, 0))}
        )
        return Batch(
            torch.from_numpy(input_ids),
            torch.from_numpy(labels),
            None if segments is None else torch.from_numpy(segments),
            float((labels != IGNORE).sum()),
            len(ids),
            extras,
        )

    def names(self, indices: Sequence[int]) -> list[str]:
        """Name rows by the ids of their conversations.

        Args:
            indices: Rows.

        Returns:
            One text for each.
        """
        names = []
        for index in indices:
            members = self._order[self._bounds[index] : self._bounds[index + 1]]
            names.append(" ".join(map(str, self.table["id"].take(pa.array(members)).to_pylist())))
        return names

    def _members(self, indices: Sequence[int]) -> tuple[Ints, Ints, Ints]:
        """List the conversations of rows: which, in which row of the batch, at which place in it; each [M]."""
        chosen = np.asarray(indices, dtype=np.int64)
        counts = self._bounds[chosen + 1] - self._bounds[chosen]
        row = np.repeat(np.arange(len(chosen)), counts)
        number = np.arange(len(row)) - np.repeat(counts.cumsum() - counts, counts)
        return self._order[np.repeat(self._bounds[chosen], counts) + number], row, number


def _spread(values: npt.NDArray[np.generic], at: tuple[Ints], shape: tuple[int, int], fill: int) -> Ints:
    """Lay values [T] out at places of [B, S]."""
    grid = np.full(shape, fill, dtype=np.int64)
    grid.reshape(-1)[at] = values
    return grid
