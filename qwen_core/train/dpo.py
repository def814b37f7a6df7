"""Direct preference optimisation (Rafailov et al., 2023, arXiv 2305.18290), with a small pull to the chosen reply.

    loss of a pair = pair loss (see `pair_losses`) + sft_weight * nats per token of the chosen reply

The second term (Pang et al., 2024, arXiv 2404.19733) keeps the chosen replies likely: without it DPO may lower both
sides, the rejected one only more, and a small model forgets how to speak. It is taken per pair, not per token of the
batch, so that the loss of a large batch is the mean of its parts.

What the reference model thinks of each reply stands in the data already: a job of its own computed it once.

Legend: B = 2 x pairs (all chosen replies first, then all rejected ones), S tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from qwen_core.errors import ArtifactError
from qwen_core.model import IGNORE
from qwen_core.parallel.engine import Batch, Objective
from qwen_core.train.conversations import PADDING, read_table
from qwen_core.train.pair_losses import Kind, pair_losses
from qwen_core.train.task import Measure

SIDES = ("chosen", "rejected")


class DpoTask:
    """Pairs of replies, and what the reference model thinks of each."""

    def __init__(
        self,
        train: str,
        validation: str,
        *,
        kind: Kind,
        beta: float,
        label_smoothing: float,
        sft_weight: float,
        batch_size: int,
        has_router: bool = False,
    ) -> None:
        """Read the data.

        Args:
            train: Arrow file with `prompt_ids`, `chosen_ids`, `rejected_ids`, and the reference's log-probabilities
                `reference_chosen`, `reference_rejected`.
            validation: The same for the held-out split.
            kind: Of the pair loss.
            beta: Strength of the pull towards the reference.
            label_smoothing: Share of pairs thought to be labelled the wrong way round.
            sft_weight: Of the chosen reply's own likelihood.
            batch_size: Pairs in one pass when measuring.
            has_router: Whether the model has experts: padding is marked, or it would count in their loads.

        Raises:
            ArtifactError: The reference's columns are missing.
        """
        self._train, self._validation = read_table(train), read_table(validation)
        self._train_reference, self._validation_reference = _reference(self._train), _reference(self._validation)
        self._kind, self._beta, self._label_smoothing = kind, beta, label_smoothing
        self._sft_weight, self._batch_size, self._has_router = sft_weight, batch_size, has_router

    def __len__(self) -> int:
        """Count the training pairs."""
        return int(self._train.num_rows)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Read pairs, with the reference's log-probabilities; see `Task`."""
        return pair_batch(self._train, indices, self._train_reference[list(indices)].T, self._has_router)

    def objective(self, losses: Tensor, batch: Batch) -> Objective:
        """Sum the pairs' losses; see `Task`."""
        logprobs = -losses.sum(1).view(2, -1)  # [2, pairs]
        ratios = logprobs - batch.extras["reference"].to(losses)
        lengths = (batch.labels != IGNORE).sum(1).view(2, -1)
        per_pair = self._losses(logprobs, ratios, lengths)
        rewards = self._beta * ratios.detach()
        figures = {
            "margin": (rewards[0] - rewards[1]).sum(),
            "reward_accuracy": (rewards[0] > rewards[1]).float().sum(),
            "chosen_reward": rewards[0].sum(),
            "rejected_reward": rewards[1].sum(),
        }
        return Objective(per_pair.sum(), figures)

    def validate(self, model: Measure) -> dict[str, float]:
        """Measure loss (the one that is trained on), rewards and preference accuracy on held-out pairs; see `Task`."""
        logprobs, lengths = pair_logprobs(model, self._validation, self._batch_size)
        ratios = (logprobs - self._validation_reference).T
        rewards = self._beta * ratios
        return {
            "loss": float(self._losses(logprobs.T, ratios, lengths.T).mean()),
            "margin": float((rewards[0] - rewards[1]).mean()),
            "reward_accuracy": float((rewards[0] > rewards[1]).double().mean()),
            "preference_accuracy": preference_accuracy(logprobs, lengths),
        }

    def describe(self, indices: Sequence[int]) -> list[str]:
        """Name pairs by their ids; see `Task`."""
        return [str(name) for name in self._train["id"].take(pa.array(list(indices))).to_pylist()]

    def _losses(self, logprobs: Tensor, ratios: Tensor, lengths: Tensor) -> Tensor:
        """Compute the losses [pairs] from log-probabilities, ratios and token counts, all [2, pairs]."""
        options = {"kind": self._kind, "beta": self._beta, "label_smoothing": self._label_smoothing}
        losses = pair_losses(ratios, lengths, **options)  # type: ignore[arg-type]
        return losses - self._sft_weight * logprobs[0] / lengths[0] if self._sft_weight else losses


def preference_accuracy(logprobs: Tensor, lengths: Tensor) -> float:
    """Share of pairs whose chosen reply is the likelier one per token; per token, so that length decides nothing.

    Args:
        logprobs: [pairs, 2], chosen and rejected.
        lengths: [pairs, 2], tokens of each.

    Returns:
        0 to 1.
    """
    means = logprobs / lengths
    return float((means[:, 0] > means[:, 1]).double().mean())


def pair_logprobs(model: Measure, table: pa.Table, batch_size: int) -> tuple[Tensor, Tensor]:
    """Sum the log-probabilities of both replies of each pair; with several workers each computes its share.

    Args:
        model: Measures.
        table: Of pairs.
        batch_size: Pairs in one pass.

    Returns:
        Log-probabilities and token counts, both [pairs, 2] (chosen, rejected), float64, on every worker.
    """
    logprobs = torch.zeros(table.num_rows, 2, dtype=torch.float64)
    lengths = torch.zeros(table.num_rows, 2, dtype=torch.float64)
    for indices, weights in model.shard.batches(table.num_rows, batch_size):
        batch = pair_batch(table, indices)
        weight = torch.tensor(weights, dtype=torch.float64)[:, None]
        where = torch.tensor(indices)
        logprobs.index_add_(0, where, -model.measure(batch).double().sum(1).view(2, -1).T * weight)
        lengths.index_add_(0, where, (batch.labels != IGNORE).double().sum(1).view(2, -1).T * weight)
    return model.shard.sum(logprobs), model.shard.sum(lengths)


def pair_batch(
    table: pa.Table, indices: Sequence[int], reference: Tensor | None = None, marks_padding: bool = False
) -> Batch:
    """Make a micro-batch of pairs.

    Args:
        table: With `prompt_ids`, `chosen_ids`, `rejected_ids`.
        indices: Which pairs.
        reference: [2, pairs], what the reference thinks of them, where it is known.
        marks_padding: Whether segments tell what is padding. Attention needs none of it: plain causal attention never
            looks to the right, and is faster.

    Returns:
        [2 x pairs, S]: all chosen replies first, then all rejected ones, padded on the right; its count is that of
        the pairs.
    """
    rows = table.take(pa.array(list(indices))).to_pylist()
    sequences, labels = [], []
    for side in SIDES:
        for row in rows:
            sequences.append(row["prompt_ids"] + row[f"{side}_ids"])
            labels.append([IGNORE] * len(row["prompt_ids"]) + row[f"{side}_ids"])
    tokens = sum(len(sequence) for sequence in sequences)
    extras = {} if reference is None else {"reference": reference}
    segments = _padded([[0] * len(sequence) for sequence in sequences], PADDING) if marks_padding else None
    return Batch(_padded(sequences, 0), _padded(labels, IGNORE), segments, float(len(rows)), tokens, extras)


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Pad sequences on the right to [B, S]; causal attention never looks there from a real token."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def _reference(table: pa.Table) -> Tensor:
    """Read what the reference thinks, [pairs, 2], float64."""
    columns = [f"reference_{side}" for side in SIDES]
    if missing := [name for name in columns if name not in table.column_names]:
        raise ArtifactError(f"the pairs lack {' and '.join(missing)}: the reference model has not judged them")
    return torch.from_numpy(np.stack([table[name].to_numpy() for name in columns], axis=1))
