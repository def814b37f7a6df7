"""Pretraining: next-token prediction on packed sequences; bits per byte on the held-out set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from qwen_core.data.packed import PackedBatch, PackedSequences
from qwen_core.model import IGNORE
from qwen_core.train.distributed import all_sum, shard_batches
from qwen_core.train.task import Objective, TokenLosses


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

    def count(self, indices: Sequence[int]) -> int:
        """Count the tokens that are predicted; see `Task`."""
        return int((tensors(self._train.batch(indices))[2] != IGNORE).sum())

    def objective(self, forward: TokenLosses, indices: Sequence[int]) -> Objective:
        """Sum the token losses of some sequences; see `Task`."""
        input_ids, segment_ids, labels = tensors(self._train.batch(indices))
        losses = forward(input_ids, segment_ids, labels)
        return Objective(losses.sum(), input_ids.numel())

    def validate(self, forward: TokenLosses) -> dict[str, float]:
        """Measure nats per token and bits per byte, overall and by language; see `Task`."""
        return bits_per_byte(forward, self._validation, self._batch_size)


def tensors(batch: PackedBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Make ids, segments and labels [B, S] of packed sequences.

    A document's first token is not predicted: what stands before it belongs to another document. Nor is padding.

    Args:
        batch: The sequences.

    Returns:
        `input_ids`, `segment_ids`, `labels`.
    """
    input_ids, segment_ids = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.segment_ids)
    labels = input_ids.clone()
    labels[:, 0] = IGNORE
    labels[:, 1:][segment_ids[:, 1:] != segment_ids[:, :-1]] = IGNORE
    position = torch.arange(labels.shape[1])
    labels[position[None, :] >= torch.from_numpy(batch.num_tokens)[:, None]] = IGNORE
    return input_ids, segment_ids, labels


def bits_per_byte(forward: TokenLosses, sequences: PackedSequences, batch_size: int) -> dict[str, float]:
    """Measure a model on packed sequences; with several workers each measures its share.

    Bits per byte compares models whatever their tokenizers: total nats / ln 2 / UTF-8 bytes predicted.

    Args:
        forward: The model.
        sequences: Each with the language and source of all its documents.
        batch_size: Sequences in one pass.

    Returns:
        `loss` (nats per token), `bits_per_byte`, and `bits_per_byte/<group>` by language and by source.
    """
    nats, tokens = torch.zeros(len(sequences), dtype=torch.float64), torch.zeros(len(sequences), dtype=torch.float64)
    for indices, weights in shard_batches(len(sequences), batch_size):
        input_ids, segment_ids, labels = tensors(sequences.batch(indices))
        with torch.no_grad():
            losses = forward(input_ids, segment_ids, labels)
        weight = torch.tensor(weights, dtype=torch.float64)
        nats.index_add_(0, torch.tensor(indices), losses.double().sum(1).cpu() * weight)
        tokens.index_add_(0, torch.tensor(indices), (labels != IGNORE).double().sum(1) * weight)
    all_sum(nats)
    all_sum(tokens)
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
            figures[f"bits_per_byte/{group}"] = float(nats[chosen].sum() / math.log(2) / num_bytes[chosen].sum())
    return figures
