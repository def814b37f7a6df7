"""Direct preference optimisation (Rafailov et al., 2023, arXiv 2305.18290), with a small pull to the chosen reply.

    loss = -log sigmoid(beta * ((policy - reference)(chosen) - (policy - reference)(rejected)))
           + sft_weight * nats per token of the chosen reply

The second term (Pang et al., 2024, arXiv 2404.19733) keeps the chosen replies likely: without it DPO may lower both
sides, the rejected one only more, and a small model forgets how to speak.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from qwen_core.model import IGNORE
from qwen_core.train.distributed import all_sum, shard_batches
from qwen_core.train.sft import padded, read_table
from qwen_core.train.task import Objective, TokenLosses


class DpoTask:
    """Pairs of replies, and what the reference model thought of each."""

    def __init__(
        self,
        train: str,
        validation: str,
        *,
        reference: TokenLosses,
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

    def count(self, indices: Sequence[int]) -> int:
        """Count the pairs; see `Task`."""
        return len(indices)

    def objective(self, forward: TokenLosses, indices: Sequence[int]) -> Objective:
        """Sum the pairs' losses; see `Task`."""
        input_ids, labels = _tensors(self._train, indices)
        losses = forward(input_ids, None, labels)
        logprobs = -losses.sum(1).view(2, -1)  # [2, pairs]: chosen, rejected
        margins = self._margins(logprobs, self._train_reference[list(indices)].T.to(losses))
        per_pair = dpo_loss(margins)
        if self._sft_weight:
            answered = (labels != IGNORE).sum(1).view(2, -1)[0]
            per_pair = per_pair - self._sft_weight * logprobs[0] / answered
        figures = {"margin": margins.detach().sum(), "reward_accuracy": (margins.detach() > 0).float().sum()}
        return Objective(per_pair.sum(), input_ids.numel(), figures)

    def validate(self, forward: TokenLosses) -> dict[str, float]:
        """Measure loss, reward accuracy and preference accuracy on held-out pairs; see `Task`."""
        logprobs, lengths = pair_logprobs(forward, self._validation, self._batch_size)
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


def pair_logprobs(forward: TokenLosses, table: pa.Table, batch_size: int) -> tuple[Tensor, Tensor]:
    """Sum the log-probabilities of both replies of each pair; with several workers each computes its share.

    Args:
        forward: The model.
        table: Of pairs.
        batch_size: Pairs in one pass.

    Returns:
        Log-probabilities and token counts, both [pairs, 2] (chosen, rejected), float64, on every worker.
    """
    logprobs = torch.zeros(table.num_rows, 2, dtype=torch.float64)
    lengths = torch.zeros(table.num_rows, 2, dtype=torch.float64)
    for indices, weights in shard_batches(table.num_rows, batch_size):
        input_ids, labels = _tensors(table, indices)
        with torch.no_grad():
            losses = forward(input_ids, None, labels)
        weight = torch.tensor(weights, dtype=torch.float64)[:, None]
        where = torch.tensor(indices)
        logprobs.index_add_(0, where, -losses.double().sum(1).cpu().view(2, -1).T * weight)
        lengths.index_add_(0, where, (labels != IGNORE).double().sum(1).view(2, -1).T * weight)
    return all_sum(logprobs), all_sum(lengths)


def _tensors(table: pa.Table, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Make ids and labels [2 x pairs, S]: all chosen replies first, then all rejected ones."""
    rows = table.take(pa.array(list(indices))).to_pylist()
    sequences, labels = [], []
    for side in ("chosen_ids", "rejected_ids"):
        for row in rows:
            sequences.append(row["prompt_ids"] + row[side])
            labels.append([IGNORE] * len(row["prompt_ids"]) + row[side])
    return padded(sequences, 0), padded(labels, IGNORE)
