"""Pretraining: next-token prediction on packed sequences; bits per byte on the held-out set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from qwen_core.data.packed import PackedBatch, PackedSequences
from qwen_core.model import IGNORE
from qwen_core.parallel.engine import Batch, Objective
from qwen_core.train.conversations import PADDING
from qwen_core.train.task import Measure


class PretrainTask:
    """Packed sequences on both sides."""

    def __init__(self, train: Sequence[str], validation: Sequence[str], validation_batch_size: int) -> None:
        """Map the data.

        Args:
            train: Arrow files of the training split.
            validation: Arrow files of the held-out split.
            validation_batch_size: Sequences in one pass when measuring.
        """
        self._train = PackedSequences(train)
        self._validation = PackedSequences(validation)
        self._batch_size = validation_batch_size

    def __len__(self) -> int:
        """Count the training sequences."""
        return len(self._train)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Read packed sequences; see `Task`."""
        return packed_batch(self._train.batch(indices))

    def objective(self, losses: Tensor, batch: Batch) -> Objective:
        """Sum the token losses; see `Task`."""
        return Objective(losses.sum())

    def validate(self, model: Measure) -> dict[str, float]:
        """Measure nats per token and bits per byte, overall, by language and by source; see `Task`."""
        return bits_per_byte(model, self._validation, self._batch_size)

    def describe(self, indices: Sequence[int]) -> list[str]:
        """Name sequences by their numbers; see `Task`."""
        return [f"sequence {index}" for index in indices]


def packed_batch(batch: PackedBatch) -> Batch:
    """Make a micro-batch of packed sequences.

    A document's first token is not predicted: what stands before it belongs to another document. Nor is padding.

    Args:
        batch: The sequences.

    Returns:
        The micro-batch; its count is that of the predicted tokens.
    """
    input_ids, segment_ids = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.segment_ids)
    labels = input_ids.clone()
    labels[:, 0] = IGNORE
    labels[:, 1:][segment_ids[:, 1:] != segment_ids[:, :-1]] = IGNORE
    is_padding = torch.arange(labels.shape[1])[None, :] >= torch.from_numpy(batch.num_tokens)[:, None]
    labels[is_padding] = IGNORE
    segment_ids = segment_ids.masked_fill(is_padding, PADDING)
    count = float((labels != IGNORE).sum())
    return Batch(input_ids, labels, segment_ids, count, int(batch.num_tokens.sum()))


def bits_per_byte(model: Measure, sequences: PackedSequences, batch_size: int) -> dict[str, float]:
    """Measure a model on packed sequences; with several workers each measures its share.

    Bits per byte compares models whatever their tokenizers: total nats / ln 2 / UTF-8 bytes predicted.

    Args:
        model: Measures.
        sequences: Each with the language and source of all its documents.
        batch_size: Sequences in one pass.

    Returns:
        `loss` (nats per token), `bits_per_byte`, and both by language and by source, as `<figure>/language/<name>`.
    """
    nats, tokens = torch.zeros(len(sequences), dtype=torch.float64), torch.zeros(len(sequences), dtype=torch.float64)
    for indices, weights in model.shard.batches(len(sequences), batch_size):
        batch = packed_batch(sequences.batch(indices))
        weight = torch.tensor(weights, dtype=torch.float64)
        nats.index_add_(0, torch.tensor(indices), model.measure(batch).double().sum(1) * weight)
        tokens.index_add_(0, torch.tensor(indices), (batch.labels != IGNORE).double().sum(1) * weight)
    model.shard.sum(nats)
    model.shard.sum(tokens)
    return _by_group(nats.numpy(), tokens.numpy(), sequences)


def _by_group(nats: np.ndarray, tokens: np.ndarray, sequences: PackedSequences) -> dict[str, float]:
    """Turn sums per sequence into figures per language and per source."""
    num_bytes = sequences.table["num_bytes"].to_numpy().astype(np.float64)
    figures = {
        "loss": float(nats.sum() / tokens.sum()),
        "bits_per_byte": float(nats.sum() / math.log(2) / num_bytes.sum()),
    }
    for column in ("language", "source"):
        labels = np.asarray(sequences.table[column].to_pylist(), dtype=object)
        for group in sorted({label for label in labels if label}):
            chosen = labels == group
            figures[f"loss/{column}/{group}"] = float(nats[chosen].sum() / tokens[chosen].sum())
            bits = nats[chosen].sum() / math.log(2)
            figures[f"bits_per_byte/{column}/{group}"] = float(bits / num_bytes[chosen].sum())
    return figures
