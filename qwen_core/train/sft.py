"""Supervised fine-tuning: loss on the assistant's tokens only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from qwen_core.model import IGNORE
from qwen_core.parallel.engine import Batch, Objective
from qwen_core.train.conversations import Conversations, read_table
from qwen_core.train.task import Measure

__all__ = ["SftTask", "answer_loss", "read_table"]


class SftTask:
    """Conversations with a mask of what the assistant said."""

    def __init__(
        self, train: str, validation: str, validation_batch_size: int, packed_seq_len: int | None = None
    ) -> None:
        """Read the data.

        Args:
            train: Arrow file with `input_ids` and `labels_mask`, lists of equal length.
            validation: The same for the held-out split.
            validation_batch_size: Rows in one pass when measuring.
            packed_seq_len: Tokens of a row at most, for packing; `None` gives each conversation a row of its own.

        Raises:
            ArtifactError: A file is broken or empty, or a conversation is longer than a row.
        """
        self._train = Conversations(read_table(train), packed_seq_len)
        self._validation = Conversations(read_table(validation), packed_seq_len, is_by_length=True)
        self._batch_size = validation_batch_size

    def __len__(self) -> int:
        """Count the training rows: conversations, or rows of packed ones."""
        return len(self._train)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Read rows; see `Task`."""
        return self._train.batch(indices)

    def objective(self, losses: Tensor, batch: Batch) -> Objective:
        """Sum the losses of the assistant's tokens; see `Task`."""
        return Objective(losses.sum())

    def validate(self, model: Measure) -> dict[str, float]:
        """Measure nats per held-out answer token, overall and by language; see `Task`."""
        return _answer_loss(model, self._validation, self._batch_size)

    def describe(self, indices: Sequence[int]) -> list[str]:
        """Name rows by the ids of their conversations; see `Task`."""
        return self._train.names(indices)


def answer_loss(model: Measure, table: pa.Table, batch_size: int) -> dict[str, float]:
    """Measure a model on held-out answers; with several workers each measures its share.

    Args:
        model: Measures.
        table: With `input_ids` and `labels_mask`, and `language` where it is known.
        batch_size: Conversations in one pass.

    Returns:
        `loss`, nats per answer token, and `loss/language/<name>`.
    """
    return _answer_loss(model, Conversations(table, is_by_length=True), batch_size)


def _answer_loss(model: Measure, conversations: Conversations, batch_size: int) -> dict[str, float]:
    """Sum nats and tokens by language over all rows."""
    names, groups = _languages(conversations.table)
    sums = torch.zeros(2, len(names), dtype=torch.float64)
    for indices, weights in model.shard.batches(len(conversations), batch_size):
        batch = conversations.batch(indices, groups)
        counted = (batch.labels != IGNORE).double() * torch.tensor(weights, dtype=torch.float64)[:, None]  # [B, S]
        group = batch.extras["group"].flatten()
        sums[0].index_add_(0, group, (model.measure(batch).double() * counted).flatten())
        sums[1].index_add_(0, group, counted.flatten())
    model.shard.sum(sums)
    figures = {"loss": float(sums[0].sum() / sums[1].sum())}
    return figures | {f"loss/language/{name}": float(sums[0, n] / sums[1, n]) for n, name in enumerate(names) if name}


def _languages(table: pa.Table) -> tuple[list[str], np.ndarray]:
    """Number the languages; return their names and each conversation's number."""
    if "language" not in table.column_names:
        return [""], np.zeros(table.num_rows, dtype=np.int64)
    told = table["language"].combine_chunks().dictionary_encode()
    names = told.dictionary.to_pylist()
    order = np.argsort(names)  # as everywhere, whichever came first in the file
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    return [names[number] for number in order], rank[told.indices.to_numpy()]
