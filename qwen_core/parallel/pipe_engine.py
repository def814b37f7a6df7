"""The engine of three dimensions: DeepSpeed's pipeline schedule, tensor-split layers, ZeRO-1 over the model's copies.

    batches ─▶ 1F1B schedule: forward, backward of each micro-batch ─▶ sums ─▶ accept? ─▶ optimiser step

DeepSpeed's schedule would take its optimiser step by itself and return the mean of the losses: `Passes` directs it, so
that the whole batch's loss is known before the weights change, and the step may be refused.

Legend: B batch, S sequence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from qwen_core.model import ModelConfig
from qwen_core.model.moe import router_of
from qwen_core.model.router import Balance
from qwen_core.parallel import gradients
from qwen_core.parallel.clock import Clock
from qwen_core.parallel.engine import Batch, Criterion, Step
from qwen_core.parallel.gather import gather_weights
from qwen_core.parallel.layout import Source
from qwen_core.parallel.optimisers import Optimisation, make_optimiser
from qwen_core.parallel.pipe_passes import Passes
from qwen_core.parallel.shard import Shard
from qwen_core.parallel.slots import layouts, refresh
from qwen_core.parallel.stage_bounds import stage_bounds
from qwen_core.parallel.start import deepspeed_config, start_deepspeed
from qwen_core.parallel.totals import Totals
from qwen_core.parallel.traffic import communication, counted, watch_deepspeed

_TAG = "state"


class PipeEngine:
    """A model over pipeline x tensor x data workers; see `engine.Engine`.

    Attributes:
        shard: Which share of each batch this worker's copy of the model trains; all workers of a copy have the same.
        device: Where this worker computes.
        stages: This worker's part of the model.
    """

    def __init__(
        self,
        config: ModelConfig,
        source: Source,
        *,
        pipeline: int,
        tensor: int,
        optim: Optimisation,
        precision: str = "bf16",
        micro_batch_size: int = 1,
        sequence_parallel: bool = False,
        gradient_checkpointing: str = "none",
        balance: Balance | None = None,
        use_gpu: bool = False,
    ) -> None:
        """Build and fill this worker's part; the process group must be up, of pipeline x tensor x data workers.

        Args:
            config: Of the whole model.
            source: Gives whole tensors by Hugging Face name; asked for this worker's alone, one at a time.
            pipeline: Stages.
            tensor: Workers that share each layer.
            optim: What the optimiser needs to know.
            precision: `bf16` or `fp16` (both with fp32 master weights), or `fp32`.
            micro_batch_size: Sequences in one pass.
            sequence_parallel: Whether norms and residuals are split along the sequence.
            gradient_checkpointing: Which layers keep only their input; see `qwen_core.model.decoder.is_checkpointed`.
            balance: Where the experts' load-balancing loss takes its counts from; see `router_of`.
            use_gpu: Otherwise DeepSpeed is told to run on the CPU.
        """
        deepspeed = start_deepspeed(use_gpu)
        deepspeed.init_distributed(dist_backend="nccl" if use_gpu else "gloo", verbose=False)
        from qwen_core.parallel.pipeline import Stages  # imports DeepSpeed itself

        self.config, self._tensor, self._micro_batch_size = config, tensor, micro_batch_size
        data = dist.get_world_size() // (pipeline * tensor)
        self.stages = Stages(
            config,
            stage_bounds(config, pipeline),
            tensor=tensor,
            data=data,
            sequence_parallel=sequence_parallel,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.stages.fill(source)
        optimiser = make_optimiser(self.stages.named_weights().items(), optim)
        settings = _config(precision, micro_batch_size, optim)
        self._engine, *_ = deepspeed.initialize(model=self.stages, optimizer=optimiser, config=settings)
        watch_deepspeed()
        if hasattr(optimiser, "layouts"):
            optimiser.layouts.update(layouts(self._engine))
        grid = self.stages.mpu()
        self.device = torch.device(self._engine.device)
        self.shard = Shard(grid.get_data_parallel_rank(), data, grid.get_data_parallel_group())
        self._router = router_of(self.stages, balance)
        if self._router is not None:
            self._router.group = self.shard.group if data > 1 else None
        self._clock = Clock(self.device)
        self._passes = Passes(self._engine, self.stages, self._clock, self._step_if_accepted)

    @property
    def module(self) -> Any:
        """This worker's part of the model."""
        return self.stages

    @property
    def deepspeed(self) -> Any:
        """DeepSpeed's own engine, for what only it can do."""
        return self._engine

    def step(
        self,
        batches: Sequence[Batch],
        criterion: Criterion,
        *,
        rate: float,
        accept: Callable[[float], bool] = lambda loss: True,
    ) -> Step:
        """Take one optimiser step; see `engine.Engine`."""
        engine = self._engine
        for group in engine.optimizer.param_groups:
            group["lr"] = rate * group["peak_lr"]
        engine.set_train_batch_size(len(batches) * self._micro_batch_size * self.shard.size)
        self._clock.take()  # what measures took is no step's
        with counted(self._clock), communication():
            totals = self._totals = Totals(batches, self.shard, self.device)
        self._accept, self._is_accepted = accept, False
        loss_scale = gradients.loss_scale(engine)
        if self._router is not None:
            self._router.start_step()
            # Each worker of a tensor group adds the losses' whole gradient to its part, and the parts are summed
            self._router.scale = loss_scale / (len(batches) * self._tensor)
        # DeepSpeed averages over micro-batches and copies: multiplied back here
        scale: float = len(batches) * self.shard.size / totals.count
        self.stages.train()

        def loss(losses: Tensor, batch: Batch) -> Tensor:
            objective = criterion(losses, batch)
            totals.add(objective)
            return objective.loss * scale

        with counted(self._clock):
            self._passes.run(batches, engine._train_schedule(), loss)
        norm = float(engine.get_global_grad_norm()) if self._is_accepted else math.nan
        return Step(
            loss=self._figures.pop("loss"),
            figures=self._figures,
            tokens=totals.tokens,
            grad_norm=norm,
            is_applied=self._is_accepted and engine.was_step_applied(),
            loss_scale=loss_scale,
            seconds=self._clock.take(),
        )

    def _step_if_accepted(self, engine: Any, step: Callable[[], None]) -> None:
        """Take DeepSpeed's optimiser step, or drop the gradients."""
        self._is_accepted = self._agree()
        if self._is_accepted:
            step()
        else:
            gradients.drop(engine)

    def _agree(self) -> bool:
        """Sum losses and figures over the copies, tell all stages, and ask whether the step may be taken."""
        engine = self._engine
        told: list[Any] = [None]
        if engine.is_last_stage():
            told = [self._totals.means()]
        if engine.is_pipe_parallel:
            last = self.stages.mpu().stage_to_global(engine.num_stages - 1)
            group = self.stages.mpu().get_pipe_parallel_group()
            dist.broadcast_object_list(told, src=last, group=group, device=self.device)
        self._figures = told[0]
        return self._accept(self._figures["loss"])

    @torch.no_grad()
    def measure(self, batch: Batch) -> Tensor:
        """Compute token losses; see `engine.Engine`."""
        engine = self._engine
        self.stages.eval()
        self._passes.run([batch], engine._inference_schedule(1), lambda losses, _: losses)
        self.stages.train()
        losses = engine.fwd_outputs[0] if engine.is_last_stage() else None
        if losses is None:
            losses = torch.zeros(batch.labels.shape, device=self.device)
        if engine.is_pipe_parallel:
            last = self.stages.mpu().stage_to_global(engine.num_stages - 1)
            dist.broadcast(losses, last, group=self.stages.mpu().get_pipe_parallel_group())
        return losses.float().cpu()

    def save(self, folder: str, state: Mapping[str, Any]) -> None:
        """Write a checkpoint; see `engine.Engine`."""
        self._engine.save_checkpoint(folder, tag=_TAG, client_state={"loop": dict(state)}, save_latest=False)

    def load(self, folder: str) -> dict[str, Any]:
        """Restore a checkpoint of the same plan; see `engine.Engine`."""
        _, state = self._engine.load_checkpoint(folder, tag=_TAG)
        refresh(self._engine)  # DeepSpeed's files leave an embedding out that is the head too
        return dict(state["loop"])

    def report(self) -> dict[str, float]:
        """Give the experts' loads of all stages; see `engine.Engine`."""
        own = {} if self._router is None else self._router.metrics()
        if not self._engine.is_pipe_parallel or not self.config.num_experts:
            return own
        group = self.stages.mpu().get_pipe_parallel_group()
        told: list[dict[str, float]] = [{} for _ in range(self._engine.num_stages)]
        dist.all_gather_object(told, own, group=group)
        figures = {name: value for one in told for name, value in one.items() if name.startswith("router/layer_")}
        for name, over in (("max_load", max), ("aux_loss", sum), ("z_loss", sum)):
            values = [one[f"router/{name}"] for one in told if one]
            if values:
                figures[f"router/{name}"] = over(values)
        return figures

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Gather the full weights; see `engine.Engine`."""
        yield from gather_weights(self.stages)


def _config(precision: str, micro_batch_size: int, optim: Optimisation) -> dict[str, Any]:
    """Write DeepSpeed's configuration."""
    # Stage 1 also where there is one copy: DeepSpeed's plain fp32 path takes the gradient norm of each copy's first
    # worker alone. Communication cannot overlap: the schedule reduces gradients after the last backward pass.
    config = deepspeed_config(precision, optim, {"stage": 1, "overlap_comm": False}, micro_batch_size)
    # Otherwise each worker of a tensor group sends a piece of what it believes all of them hold: under sequence
    # parallelism they do not, and without it the pieces' shapes are remembered when shapes change
    return config | {"pipeline": {"pipe_partitioned": False, "grad_partitioned": False}}
