"""What a training stage brings to the loop: its data, its objective, its measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

TokenLosses = Callable[[Tensor, Tensor | None, Tensor], Tensor]
"""`(input_ids, segment_ids, labels) -> losses`, all [B, S]: a forward pass of the model, engine or not."""


@dataclass
class Objective:
    """Sums over one micro-batch; the loop divides by the whole batch's count, so accumulation changes nothing.

    Attributes:
        loss: Scalar sum to be minimised, with its graph.
        tokens: Tokens that went through the model.
        figures: Further sums over the items, for the log.
    """

    loss: Tensor
    tokens: int
    figures: dict[str, Tensor] = field(default_factory=dict)


class Task(Protocol):
    """A training stage's side of the loop."""

    def __len__(self) -> int:
        """Count the training examples."""
        ...

    def count(self, indices: Sequence[int]) -> int:
        """Count what the loss is divided by (tokens, pairs), without the model.

        Args:
            indices: Training examples.

        Returns:
            The same number that `objective` sums over.
        """
        ...

    def objective(self, forward: TokenLosses, indices: Sequence[int]) -> Objective:
        """Compute the loss of one micro-batch.

        Args:
            forward: The model.
            indices: Training examples.

        Returns:
            Sums.
        """
        ...

    def validate(self, forward: TokenLosses) -> dict[str, float]:
        """Measure on the held-out set; every worker calls it and gets the same figures.

        Args:
            forward: The model.

        Returns:
            Figures by name; `loss` is always there.
        """
        ...
