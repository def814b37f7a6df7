"""Supervised fine-tuning: loss on the assistant's tokens only."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import torch
from torch import Tensor

from qwen_core.model import IGNORE
from qwen_core.parallel.engine import Batch, Objective
from qwen_core.train.task import Measure


class SftTask:
    """Conversations with a mask of what the assistant said."""

    def __init__(self, train: str, validation: str, validation_batch_size: int) -> None:
        """Read the data.

        Args:
            train: Arrow file with `input_ids` and `labels_mask`, lists of equal length.
            validation: The same for the held-out split.
            validation_batch_size: Conversations in one pass when measuring.
        """
        self._train = read_table(train)
        self._validation = read_table(validation)
        self._batch_size = validation_batch_size

    def __len__(self) -> int:
        """Count the training conversations."""
        return int(self._train.num_rows)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Read conversations; see `Task`."""
        return _batch(self._train, indices)

    def objective(self, losses: Tensor, batch: Batch) -> Objective:
        """Sum the losses of the assistant's tokens; see `Task`."""
        return Objective(losses.sum())

    def validate(self, model: Measure) -> dict[str, float]:
        """Measure nats per held-out answer token; see `Task`."""
        return answer_loss(model, self._validation, self._batch_size)

    def describe(self, indices: Sequence[int]) -> list[str]:
        """Name conversations by their ids; see `Task`."""
        return [str(name) for name in self._train["id"].take(pa.array(list(indices))).to_pylist()]


def read_table(path: str) -> pa.Table:
    """Map an Arrow file.

    Args:
        path: Local Arrow IPC file.

    Returns:
        Its table.
    """
    return pa.ipc.open_file(pa.memory_map(path)).read_all()


def answer_loss(model: Measure, table: pa.Table, batch_size: int) -> dict[str, float]:
    """Measure a model on held-out answers; with several workers each measures its share.

    Args:
        model: Measures.
        table: With `input_ids` and `labels_mask`.
        batch_size: Conversations in one pass.

    Returns:
        `loss`, nats per answer token.
    """
    sums = torch.zeros(2, dtype=torch.float64)
    for indices, weights in model.shard.batches(table.num_rows, batch_size):
        batch = _batch(table, indices)
        weight = torch.tensor(weights, dtype=torch.float64)
        sums[0] += (model.measure(batch).double().sum(1) * weight).sum()
        sums[1] += ((batch.labels != IGNORE).double().sum(1) * weight).sum()
    model.shard.sum(sums)
    return {"loss": float(sums[0] / sums[1])}


def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Pad sequences on the right; causal attention never looks there from a real token.

    Args:
        rows: Sequences of any lengths.
        value: Fills up.

    Returns:
        [B, S], int64, S the longest's length.
    """
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def _batch(table: pa.Table, indices: Sequence[int]) -> Batch:
    """Make a micro-batch of some conversations."""
    rows = table.take(pa.array(list(indices)))
    input_ids = padded(rows["input_ids"].to_pylist(), 0)
    counted = padded([[int(is_answer) for is_answer in row] for row in rows["labels_mask"].to_pylist()], 0)
    labels = input_ids.masked_fill(counted == 0, IGNORE)
    tokens = sum(len(row) for row in rows["input_ids"].to_pylist())
    return Batch(input_ids, labels, None, float((labels != IGNORE).sum()), tokens)
