"""DeepSpeed ZeRO: a model whose optimizer state, gradients and weights are spread over the workers.

    model ─▶ [ZeRO-3: cut up parameter by parameter] ─▶ engine
    step: passes (forward, backward, gradients reduced) ─▶ the whole batch's loss ─▶ accept? ─▶ optimiser | drop

ZeRO (Rajbhandari et al., 2020, arXiv 1910.02054) spreads optimizer state (stage 1), gradients (2) and weights (3).
Which worker sees which sequences changes nothing but rounding: losses are summed, and divided by the count of the
whole batch over all workers and passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qwen_core.model.moe import router_of
from qwen_core.parallel import gradients
from qwen_core.parallel.clock import Clock
from qwen_core.parallel.engine import Batch, Criterion, Step
from qwen_core.parallel.expert import (
    engine_of_experts,
    plain_checkpoint,
    refresh_experts,
    share_experts,
    whole_of,
)
from qwen_core.parallel.layout import Source
from qwen_core.parallel.materialise import materialise
from qwen_core.parallel.optimisers import Optimisation, make_optimiser
from qwen_core.parallel.shard import Shard
from qwen_core.parallel.slots import layouts
from qwen_core.parallel.start import deepspeed_config, start_deepspeed
from qwen_core.parallel.totals import Totals
from qwen_core.parallel.traffic import communication, counted, watch_deepspeed

_TAG = "state"
_PERSIST_NUMBERS = 10_000
"""ZeRO-3 keeps parameters of fewer numbers whole on each worker: gathering a norm costs more than its memory."""
_LEAF_NUMBERS = 2_000_000
"""ZeRO-3 gathers a whole layer of fewer numbers at once: small layers wait for calls, not for bytes."""


@dataclass(frozen=True)
class Zero:
    """How far ZeRO goes.

    Attributes:
        stage: 0 to 3.
        offload_optimizer: `none`, `cpu` or `nvme`: where optimizer state lies between steps.
        offload_parameters: The same for weights that are not in use; stage 3.
        nvme_path: Folder on a local disk, for `nvme`.
        expert: Workers that share out a layer's experts; 1 keeps them together.
        persist_numbers: Stage 3: parameters of fewer numbers stay whole.
        leaf_numbers: Stage 3: layers of fewer numbers are gathered at once.
    """

    stage: int = 3
    offload_optimizer: str = "none"
    offload_parameters: str = "none"
    nvme_path: str = ""
    expert: int = 1
    persist_numbers: int = _PERSIST_NUMBERS
    leaf_numbers: int = _LEAF_NUMBERS


class ZeroEngine:
    """A model under DeepSpeed ZeRO; see `engine.Engine` for what each method does."""

    def __init__(
        self,
        model: nn.Module,
        *,
        zero: Zero,
        precision: str,
        optim: Optimisation,
        use_gpu: bool,
        source: Source | None = None,
    ) -> None:
        """Spread a model; torch's process group must be up.

        Args:
            model: Whole, the same on each worker; or on the meta device, where `source` gives the weights.
            zero: How far ZeRO goes.
            precision: `bf16` or `fp16` with fp32 master weights, or `fp32`.
            optim: The optimiser.
            use_gpu: Otherwise DeepSpeed is told to run on the CPU.
            source: Gives each whole parameter by name, so that no worker ever holds the whole model (stage 3).
        """
        deepspeed = start_deepspeed(use_gpu)
        config = _config(zero, precision, optim, use_gpu)
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
        if zero.expert > 1:
            share_experts(model, zero.expert)
        if any(parameter.is_meta for parameter in model.parameters()):
            if source is None:
                raise ValueError("a model on the meta device needs a `source`, which gives its weights")
            materialise(model, source, dtype, config if zero.stage == 3 else None)
        self._engine = _initialise(deepspeed, model, optim, config, zero)
        self._zero, self._dtype = zero, dtype
        self._router = router_of(self.module)
        self.device = torch.device(self._engine.device)
        world = torch.distributed.get_world_size()
        self.shard = Shard(torch.distributed.get_rank(), world)
        if self._router is not None:
            self._router.group = torch.distributed.group.WORLD if world > 1 else None
        self._clock = Clock(self.device)

    @property
    def module(self) -> nn.Module:
        """The model itself; under ZeRO-3 its parameters are empty outside of a pass."""
        module: nn.Module = self._engine.module
        return module

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
        """Take one optimiser step; see `Engine`."""
        with counted(self._clock):
            return self._step(batches, criterion, rate, accept)

    def _step(
        self, batches: Sequence[Batch], criterion: Criterion, rate: float, accept: Callable[[float], bool]
    ) -> Step:
        self._set_mode(training=True)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate * group["peak_lr"]
        with communication():
            totals = Totals(batches, self.shard, self.device)
        scale = gradients.loss_scale(self._engine)
        if self._router is not None:
            self._router.start_step()
            self._router.scale = scale / len(batches)
        for number, batch in enumerate(batches):
            self._engine.set_gradient_accumulation_boundary(number == len(batches) - 1)
            self._pass(batch, criterion, totals)
        with communication():
            figures = totals.means()
        loss = figures.pop("loss")
        with self._clock.part("optimiser"):
            norm, is_applied = self._finish(loss, accept)
        return Step(loss, figures, totals.tokens, norm, is_applied, scale, self._clock.take())

    @torch.no_grad()
    def measure(self, batch: Batch) -> Tensor:
        """Compute token losses without gradient; see `Engine`."""
        self._set_mode(training=False)
        return self._forward(batch.to(self.device)).float().cpu()

    def save(self, folder: str, state: Mapping[str, Any]) -> None:
        """Write this worker's shards; see `Engine`."""
        with plain_checkpoint(self._engine):
            self._engine.save_checkpoint(folder, tag=_TAG, client_state={"loop": dict(state)}, save_latest=False)

    def load(self, folder: str) -> dict[str, Any]:
        """Restore what `save` wrote; see `Engine`."""
        with plain_checkpoint(self._engine):
            _, state = self._engine.load_checkpoint(folder, tag=_TAG)
        refresh_experts(self._engine)
        return dict(state["loop"])

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Gather the full weights one at a time; see `Engine`."""
        import deepspeed

        is_first = self.shard.rank == 0
        for name, parameter in self.module.named_parameters():
            with deepspeed.zero.GatheredParameters([parameter], enabled=self._zero.stage == 3):
                gathered = whole_of(parameter, parameter.detach())
                # a copy, for the gathered tensor is freed when the next one comes
                whole = gathered.to("cpu", self._dtype, copy=True) if is_first else None
            if whole is not None:
                yield name, whole

    def report(self) -> dict[str, float]:
        """Tell how the routers spread their tokens; see `Engine`."""
        return {} if self._router is None else self._router.metrics()

    def _pass(self, batch: Batch, criterion: Criterion, totals: Totals) -> None:
        """Run one micro-batch forward and backward; add its sums up."""
        placed = batch.to(self.device)
        with self._clock.part("forward"):
            objective = criterion(self._forward(placed), placed)
        with self._clock.part("backward"):
            # DeepSpeed averages the gradients over the workers: multiplied back here
            self._engine.backward(objective.loss * (self.shard.size / totals.count), scale_wrt_gas=False)
        totals.add(objective)

    def _forward(self, batch: Batch) -> Tensor:
        losses: Tensor = self._engine(batch.input_ids, segment_ids=batch.segment_ids, labels=batch.labels)
        return losses

    def _finish(self, loss: float, accept: Callable[[float], bool]) -> tuple[float, bool]:
        """Let the optimiser step, or drop the gradients; return their norm and whether the weights changed."""
        if not accept(loss):
            gradients.drop(self._engine)
            return float("nan"), False
        norm = gradients.norm_without_zero(self._engine)
        if norm is not None and not norm < float("inf"):
            gradients.drop(self._engine)  # DeepSpeed looks for NaN in all its optimizers, but not without one
            return norm, False
        self._engine.step()
        return float(self._engine.get_global_grad_norm()) if norm is None else norm, self._engine.was_step_applied()

    def _set_mode(self, training: bool) -> None:
        if self.module.training != training:
            self._engine.train(training)


def _initialise(deepspeed: Any, model: nn.Module, optim: Optimisation, config: dict[str, Any], zero: Zero) -> Any:
    """Start DeepSpeed's engine with our optimiser, and tell the optimiser where its matrices lie."""
    if zero.stage == 3:
        _mark_leaves(model, zero.leaf_numbers)
    optimiser = make_optimiser(model.named_parameters(), optim)
    with engine_of_experts(model, zero.stage):
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimiser, config=config)
    watch_deepspeed()
    gradients.forget_first_step(engine)
    if hasattr(optimiser, "layouts"):
        optimiser.layouts.update(layouts(engine))
    return engine


def _mark_leaves(model: nn.Module, limit: int) -> None:
    """Have small layers gathered whole: the class that ZeRO-3 takes as one is that of the layer."""
    layers = [module for name, module in model.named_modules() if name.rpartition(".")[2].isdigit()]
    for layer in layers:
        if sum(getattr(p, "ds_numel", p.numel()) for p in layer.parameters()) <= limit:
            layer._z3_leaf = True


def _config(zero: Zero, precision: str, optim: Optimisation, use_gpu: bool) -> dict[str, Any]:
    """Write DeepSpeed's configuration."""
    offload = {"optimizer": zero.offload_optimizer, "param": zero.offload_parameters}
    section: dict[str, Any] = {
        "stage": zero.stage,
        "contiguous_gradients": True,
        "overlap_comm": use_gpu,  # needs streams
        "reduce_scatter": True,
        "stage3_param_persistence_threshold": zero.persist_numbers,
    }
    for part, device in offload.items():
        if device != "none":
            section[f"offload_{part}"] = {"device": device, "pin_memory": use_gpu, "nvme_path": zero.nvme_path or None}
    return deepspeed_config(precision, optim, section)
