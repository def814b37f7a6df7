"""What a training stage brings to the loop: its data, its objective, its measures.

A model is seen through two doors: in training the engine computes token losses of a `Batch` and hands them to
`objective`; when measuring, `validate` gets a `Measure` and calls it itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from qwen_core.parallel.engine import Batch, Objective
from qwen_core.parallel.shard import ALONE, Shard


class Measure(Protocol):
    """A model that measures: an engine does, so does `Alone`."""

    shard: Shard

    def measure(self, batch: Batch) -> Tensor:
        """Compute token losses [B, S] in nats, fp32 on the CPU, without gradient."""
        ...


class Alone:
    """A whole model in this process, which measures."""

    def __init__(self, model: nn.Module, device: torch.device | str = "cpu") -> None:
        """Place the model.

        Args:
            model: Takes `input_ids`, `segment_ids`, `labels`.
            device: Where it computes.
        """
        self.shard = ALONE
        self._model, self._device = model.to(device), torch.device(device)

    @torch.no_grad()
    def measure(self, batch: Batch) -> Tensor:
        """Compute token losses; see `Measure`."""
        placed = batch.to(self._device)
        losses = self._model(placed.input_ids, segment_ids=placed.segment_ids, labels=placed.labels)
        return losses.float().cpu()  # type: ignore[no-any-return]


class Task(Protocol):
    """A training stage's side of the loop."""

    def __len__(self) -> int:
        """Count the training examples."""
        ...

    def batch(self, indices: Sequence[int]) -> Batch:
        """Read training examples.

        Args:
            indices: Which ones, in order; repeats are allowed.

        Returns:
            One micro-batch.
        """
        ...

    def objective(self, losses: Tensor, batch: Batch) -> Objective:
        """Turn token losses into what is minimised; pure tensor work, on any device.

        Args:
            losses: [B, S], with their graph.
            batch: Whose losses they are; its tensors are on the same device.

        Returns:
            Sums over the micro-batch.
        """
        ...

    def validate(self, model: Measure) -> dict[str, float]:
        """Measure on the held-out set; every worker calls it and gets the same figures.

        Args:
            model: Measures this worker's share.

        Returns:
            Figures by name; `loss` is always there.
        """
        ...

    def describe(self, indices: Sequence[int]) -> list[str]:
        """Name training examples for a person who looks for a bad one: document ids where they are known."""
        ...
