"""What the training loop asks of a spread model, whichever way it is spread.

    loop ── step(batches, criterion, ...) ──▶ engine ──▶ Step (sums over the whole batch, norm, seconds)
         ── measure(batch) ──▶ token losses of this worker's share
         ── save / load ──▶ a folder of shards     ── parameters() ──▶ full weights, one at a time, on rank 0

Engines: `ZeroEngine` (DeepSpeed ZeRO 0 to 3) and `PipeEngine` (pipeline x tensor x data parallel, ZeRO-1).

Legend: B sequences of a micro-batch, S tokens of a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from qwen_core.parallel.shard import Shard


@dataclass(frozen=True)
class Batch:
    """One micro-batch, on the CPU; the engine places it.

    Attributes:
        input_ids: [B, S], int64.
        labels: [B, S], int64; `labels[:, i]` is what position `i - 1` should predict; `IGNORE` counts nothing.
        segment_ids: [B, S], which document each token belongs to; `None` means one document a sequence.
        count: What the loss is divided by: tokens that are predicted, or pairs.
        tokens: Tokens that go through the model, without padding.
        extras: The task's own tensors, such as a reference model's log-probabilities.
    """

    input_ids: Tensor
    labels: Tensor
    segment_ids: Tensor | None
    count: float
    tokens: int
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> Batch:
        """Place the tensors on a device; the host waits only where the copying itself makes it."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return replace(
            self,
            input_ids=move(self.input_ids),
            labels=move(self.labels),
            segment_ids=None if self.segment_ids is None else move(self.segment_ids),
            extras={name: move(tensor) for name, tensor in self.extras.items()},
        )


@dataclass
class Objective:
    """Sums over one micro-batch; the engine divides by the whole batch's count, so accumulation changes nothing.

    Attributes:
        loss: Scalar sum to be minimised, with its graph.
        figures: Further sums over the items, for the log.
    """

    loss: Tensor
    figures: dict[str, Tensor] = field(default_factory=dict)


Criterion = Callable[[Tensor, Batch], Objective]
"""`(token losses [B, S], batch) -> objective`: the task's side of a pass; pure tensor work."""


@dataclass(frozen=True)
class Step:
    """What an optimiser step did; the same on every worker.

    Attributes:
        loss: Sum over the whole batch divided by its count.
        figures: The objective's further sums, divided by the count.
        tokens: Tokens that went through the model, over all workers.
        grad_norm: Before clipping; `nan` where the engine cannot tell.
        is_applied: Whether the weights changed: not when fp16 overflowed, nor when `accept` refused.
        loss_scale: Of fp16; 1 otherwise.
        seconds: Of this worker, by part: forward, backward, optimiser, communication (what the engine can tell apart).
    """

    loss: float
    figures: dict[str, float]
    tokens: int
    grad_norm: float
    is_applied: bool
    loss_scale: float = 1.0
    seconds: dict[str, float] = field(default_factory=dict)


class Engine(Protocol):
    """A spread model with its optimiser."""

    shard: Shard
    """Which share of each batch this worker trains and measures."""
    device: torch.device

    def step(
        self,
        batches: Sequence[Batch],
        criterion: Criterion,
        *,
        rate: float,
        accept: Callable[[float], bool] = lambda loss: True,
    ) -> Step:
        """Take one optimiser step over this worker's micro-batches.

        Args:
            batches: One for each pass, as many on every worker; the number may change from step to step.
            criterion: Turns token losses into the objective.
            rate: Factor on each parameter group's own peak learning rate, 0 to 1.
            accept: Asked on every worker, alike, with the whole batch's loss before the weights change; where it
                refuses, the gradients are dropped and nothing changes.

        Returns:
            What happened.
        """
        ...

    def measure(self, batch: Batch) -> Tensor:
        """Compute token losses [B, S], fp32 on the CPU, without gradient; all workers of a model must call alike."""
        ...

    def save(self, folder: str, state: Mapping[str, Any]) -> None:
        """Write this worker's shards and the loop's own state (plain JSON) below a folder."""
        ...

    def load(self, folder: str) -> dict[str, Any]:
        """Restore what `save` wrote, at the same plan; return the loop's own state."""
        ...

    def report(self) -> dict[str, float]:
        """Give further figures since the last call, such as experts' loads; every worker must call, alike."""
        ...

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Gather the full weights one at a time under their Hugging Face names; every worker must iterate.

        Yields:
            Names and tensors in the training dtype, on the CPU; rank 0 gets them all, others nothing.
        """
        ...
