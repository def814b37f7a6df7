"""How micro-batches go through the stages: DeepSpeed's schedule with three instructions of our own.

    batches ─▶ placed, padded ─▶ schedule: [which micro-batch comes] forward, backward, send, receive ... ─▶ gradients
                                                               ─▶ [sum what is in parts] ─▶ [step, if it may be taken]

Legend: B batch, S sequence, E hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from qwen_core.model.decoder import Shared, shared_inputs
from qwen_core.model.loss import counted_rows
from qwen_core.parallel.clock import Clock
from qwen_core.parallel.engine import Batch

if TYPE_CHECKING:
    from qwen_core.parallel.pipeline import Stages

Loss = Callable[[Tensor, Batch], Tensor]
"""`(token losses [B, S], batch) -> what the last stage hands to the backward pass`."""


_PARTS = {
    "ForwardPass": "forward",
    "BackwardPass": "backward",
    "LoadMicroBatch": "data",
    "OptimizerStep": "optimiser",
}
"""What a kind of instruction counts as in `Step.seconds`; all others are communication, waiting included."""


class Passes:
    """Sends micro-batches through this worker's stage, as DeepSpeed's schedule has it."""

    def __init__(
        self, engine: Any, stages: Stages, clock: Clock, take_step: Callable[[Any, Callable[[], None]], None]
    ) -> None:
        """Put our instructions in the place of three of DeepSpeed's.

        Args:
            engine: DeepSpeed's pipeline engine.
            stages: This worker's part of the model.
            clock: Times the instructions.
            take_step: Called with the engine and DeepSpeed's own instruction for the optimiser step.
        """
        self._engine, self._stages, self._clock, self._take_step = engine, stages, clock, take_step
        self._device = torch.device(engine.device)
        self._summed = stages.summed_weights()
        self._batches: Sequence[Batch] = ()
        self._inputs: Sequence[tuple[Tensor, Tensor | None]] = ()
        self._number = -1
        self._shape: torch.Size | None = None
        self._direct()

    def run(self, batches: Sequence[Batch], schedule: Iterable[Any], loss: Loss) -> None:
        """Send micro-batches through all stages; every worker of a copy calls alike.

        Args:
            batches: The same on all workers of a copy.
            schedule: DeepSpeed's, for as many micro-batches.
            loss: Called on the last stage.
        """
        engine = self._engine
        self._batches, self._number = [batch.to(self._device) for batch in batches], -1
        self._inputs = [self._padded(batch) for batch in self._batches]
        self._agree_on_shapes()
        self._stages.loss_fn = lambda losses, _: loss(losses, self._batches[self._number])
        engine.total_loss, engine._compute_loss = None, True
        # In the place of labels the last stage is given something: it knows the batch
        pairs = zip(self._inputs, self._batches, strict=True)
        engine.set_dataiterator((ids, batch.labels) for (ids, _), batch in pairs)
        engine._exec_schedule(schedule)

    def _agree_on_shapes(self) -> None:
        """Have stages tell each other shapes before each message where they differ, else once for each new shape."""
        shapes = {batch.input_ids.shape for batch in self._batches}
        self._engine.dynamic_shape = len(shapes) > 1
        shape = None if len(shapes) > 1 else next(iter(shapes))
        if shape is None or shape != self._shape:
            self._engine.reset_activation_shape()
        self._shape = shape

    def _direct(self) -> None:
        """Put our instructions in the place of three of DeepSpeed's."""
        from deepspeed.runtime.pipe import schedule

        theirs = self._engine._INSTRUCTION_MAP

        def forward(engine: Any, buffer_id: int) -> None:
            self._number += 1
            batch = self._batches[self._number]
            self._stages.shared = self._shared(*self._inputs[self._number])
            if engine.is_last_stage():
                self._stages.labels = (batch.labels, counted_rows(batch.labels))
            theirs[schedule.ForwardPass](engine, buffer_id)

        def reduce_parts(engine: Any) -> None:
            theirs[schedule.ReduceTiedGrads](engine)
            self._sum_parts()

        def take_step(engine: Any) -> None:
            self._take_step(engine, lambda: theirs[schedule.OptimizerStep](engine))

        own = {schedule.ForwardPass: forward, schedule.ReduceTiedGrads: reduce_parts, schedule.OptimizerStep: take_step}
        self._engine._INSTRUCTION_MAP = {
            kind: self._timed(kind.__name__, instruction) for kind, instruction in (theirs | own).items()
        }

    def _timed(self, name: str, instruction: Callable[..., None]) -> Callable[..., None]:
        """Add up the seconds that a kind of instruction takes, waiting for others included."""
        part = _PARTS.get(name, "communication")

        def run(engine: Any, **kwargs: Any) -> None:
            with self._clock.part(part):
                instruction(engine, **kwargs)

        return run

    def _sum_parts(self) -> None:
        """Sum over the tensor group the gradients of which each worker has a summand, in one message for each type."""
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for weight in self._summed:
            is_bf16 = self._engine.using_bf16_optimizer
            grad = weight._hp_grad if is_bf16 else weight.grad  # type: ignore[attr-defined]
            if grad is not None:
                by_dtype.setdefault(grad.dtype, []).append(grad)
        for grads in by_dtype.values():
            flat = torch.cat([grad.flatten() for grad in grads])
            dist.all_reduce(flat, group=self._stages.tensor_group.group)
            for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
                grad.copy_(part.view_as(grad))

    def _padded(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Give ids and segments, lengthened by a document of its own until sequence parallelism can split them."""
        group = self._stages.tensor_group
        missing = -batch.input_ids.shape[1] % group.size if group.is_sequence_parallel else 0
        if not missing:
            return batch.input_ids, batch.segment_ids
        segments = torch.zeros_like(batch.input_ids) if batch.segment_ids is None else batch.segment_ids
        return F.pad(batch.input_ids, (0, missing)), F.pad(segments, (0, missing), value=-1)

    def _shared(self, input_ids: Tensor, segment_ids: Tensor | None) -> Shared:
        """Make what the layers need beside the hidden states."""
        shape = (input_ids.shape[0], input_ids.shape[1])
        dtype = next(self._stages.parameters()).dtype
        return shared_inputs(self._stages.config, shape, segment_ids, dtype=dtype, device=self._device)
