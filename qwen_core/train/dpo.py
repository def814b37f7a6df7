"""Direct preference optimisation (Rafailov et al., 2023, arXiv 2305.18290), with a small pull to the chosen reply.

    loss = -log sigmoid(beta * ((policy - reference)(chosen) - (policy - reference)(rejected)))
           + sft_weight * nats per token of the chosen reply

The second term (Pang et al., 2024, arXiv 2404.19733) keeps the chosen replies likely: without it DPO may lower both
sides, the rejected one only more, and a small model forgets how to speak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from qwen_core.model import IGNORE
from qwen_core.parallel.engine import Batch, Objective
from qwen_core.train.sft import padded, read_table
from qwen_core.train.task import Measure


class DpoTask:
    """Pairs of replies, and what the reference model thought of each."""

    def __init__(
        self,
        train: str,
        validation: str,
        *,
        reference: Measure,
        beta: float,
        sft_weight: float,
        batch_size: int,
    ) -> None:
        """Read the data and let the reference model judge all of it once.

        Args:
            train: Arrow file with `prompt_ids`, `chosen_ids`, `rejected_ids`.
            validation: The same for the held-out split.
            reference: The frozen model.
            beta: Strength of the pull towards the reference.
            sft_weight: Of the chosen reply's own likelihood.
            batch_size: Pairs in one pass when measuring.
        """
        self._train, self._validation = read_table(train), read_table(validation)
        self._beta, self._sft_weight, self._batch_size = beta, sft_weight, batch_size
        self._train_reference, _ = pair_logprobs(reference, self._train, batch_size)
        self._validation_reference, _ = pair_logprobs(reference, self._validation, batch_size)

    def __len__(self) -> int:
        """Count the training pairs."""
        return int(self._train.num_rows)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Read pairs, with the reference's log-probabilities; see `Task`."""
        return _batch(self._train, indices, {"reference": self._train_reference[list(indices)].T})

    def objective(self, losses: Tensor, batch: Batch) -> Objective:
        """Sum the pairs' losses; see `Task`."""
        labels = batch.labels
        logprobs = -losses.sum(1).view(2, -1)  # [2, pairs]: chosen, rejected
        margins = self._margins(logprobs, batch.extras["reference"].to(losses))
        per_pair = dpo_loss(margins)
        if self._sft_weight:
            answered = (labels != IGNORE).sum(1).view(2, -1)[0]
            per_pair = per_pair - self._sft_weight * logprobs[0] / answered
        figures = {"margin": margins.detach().sum(), "reward_accuracy": (margins.detach() > 0).float().sum()}
        return Objective(per_pair.sum(), figures)

    def describe(self, indices: Sequence[int]) -> list[str]:
        """Name pairs by their ids; see `Task`."""
        return [str(name) for name in self._train["id"].take(pa.array(list(indices))).to_pylist()]

    def validate(self, model: Measure) -> dict[str, float]:
        """Measure loss, reward accuracy and preference accuracy on held-out pairs; see `Task`."""
        logprobs, lengths = pair_logprobs(model, self._validation, self._batch_size)
        margins = self._margins(logprobs.T, self._validation_reference.T)
        return {
            "loss": float(dpo_loss(margins).mean()),
            "margin": float(margins.mean()),
            "reward_accuracy": float((margins > 0).double().mean()),
            "preference_accuracy": preference_accuracy(logprobs, lengths),
        }

    def _margins(self, policy: Tensor, reference: Tensor) -> Tensor:
        """Take the implicit reward of chosen over rejected; both arguments [2, pairs]."""
        rewards = self._beta * (policy - reference)
        return rewards[0] - rewards[1]


def dpo_loss(margins: Tensor) -> Tensor:
    """Compute DPO's loss of each pair.

    Worked by hand: a margin of 0 gives ln 2 = 0.6931; of 1, ln(1 + 1/e) = 0.3133.

    Args:
        margins: Implicit reward of chosen over rejected, any shape.

    Returns:
        `-log sigmoid(margin)`, the same shape.
    """
    return -F.logsigmoid(margins)


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
        batch = _batch(table, indices)
        weight = torch.tensor(weights, dtype=torch.float64)[:, None]
        where = torch.tensor(indices)
        logprobs.index_add_(0, where, -model.measure(batch).double().sum(1).view(2, -1).T * weight)
        lengths.index_add_(0, where, (batch.labels != IGNORE).double().sum(1).view(2, -1).T * weight)
    return model.shard.sum(logprobs), model.shard.sum(lengths)


def _batch(table: pa.Table, indices: Sequence[int], extras: Mapping[str, Tensor] | None = None) -> Batch:
    """Make a micro-batch [2 x pairs, S]: all chosen replies first, then all rejected ones."""
    rows = table.take(pa.array(list(indices))).to_pylist()
    sequences, labels = [], []
    for side in ("chosen_ids", "rejected_ids"):
        for row in rows:
            sequences.append(row["prompt_ids"] + row[side])
            labels.append([IGNORE] * len(row["prompt_ids"]) + row[side])
    tokens = sum(len(sequence) for sequence in sequences)
    return Batch(padded(sequences, 0), padded(labels, IGNORE), None, float(len(rows)), tokens, extras or {})
