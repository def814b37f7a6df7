"""Expert parallelism: a layer's experts are shared out over a group of workers, and tokens travel to them and back.

    rows by expert [N, E] ─▶ all-to-all ─▶ rows by source and expert ─▶ by expert ─▶ own experts ─▶ back the same way

Workers that see different data form groups of `size`; each keeps 1/size of every layer's experts, whole. Outside the
experts nothing changes: ZeRO spreads what all workers have over all of them, and an expert's state over those that
keep the same expert (Rajbhandari et al., 2022, DeepSpeed-MoE, arXiv 2201.05596, section 5). An expert sees the rows of
its whole group, so its gradient is a sum over them already; divided by the number of all workers it is the mean that
one process would have computed.

DeepSpeed 0.19.8 brings two ways of its own, and neither serves here. `deepspeed.moe.MoE` (ZeRO 0 to 2) has a gate with
capacities that drops tokens. AutoEP (ZeRO 0 to 3, with a preset for Qwen3-MoE) replaces the whole sparse layer, router
and all: the balancing losses and the load counts are lost, and the experts' weights get names of its own, three
tensors for our two. Its groups and its reduction of gradients are what the experts here are put into, by the marks
that it reads off parameters.

Legend: N rows (a token's copy for one expert), E hidden, X experts, G workers of a group, L = X / G experts of each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from qwen_core.errors import RecipeError
from qwen_core.model.moe import Experts, SparseMoeBlock, permute
from qwen_core.parallel.traffic import communication


class ExpertShare(Experts):
    """This worker's experts of a layer; takes the place of `Experts`, and keeps its names.

    Attributes:
        gate_up_proj: [L, 2I, E].
        down_proj: [L, E, I].
        group: The workers among whom the layer's experts are shared out.
    """

    def __init__(self, whole: Experts, group: Any) -> None:
        """Take over this worker's share of whole experts, on any device, the meta device too."""
        nn.Module.__init__(self)
        self.group = group
        for name in ("gate_up_proj", "down_proj"):
            weight = getattr(whole, name)
            share = _cut(weight.detach(), group).clone()
            setattr(self, name, nn.Parameter(share, requires_grad=weight.requires_grad))

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        """Apply to each row its expert, wherever it is; all workers of the group must call.

        Args:
            x: [N, E], rows sorted by expert.
            counts: [X], int64, how many rows each expert has here.

        Returns:
            [N, E].
        """
        size = dist.get_world_size(self.group)
        sent = counts.view(size, -1)  # [G, L]
        received = torch.empty_like(sent)  # [G, L], by source
        with communication():
            dist.all_to_all_single(received, sent.contiguous(), group=self.group)
        splits = torch.stack((sent.sum(1), received.sum(1))).tolist()  # waits for the device: sizes must be known
        rows = exchange(x, splits[0], splits[1], self.group)
        experts = torch.arange(received.shape[1], device=x.device).repeat(size)
        order = experts.repeat_interleave(received.flatten(), output_size=len(rows)).argsort(stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        rows = super().forward(permute(rows, order, inverse), received.sum(0))
        return exchange(permute(rows, inverse, order), splits[1], splits[0], self.group)


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sent: Sequence[int], received: Sequence[int], group: Any) -> Tensor:
        ctx.splits, ctx.group = (sent, received), group
        out = x.new_empty(sum(received), *x.shape[1:])
        with communication():
            dist.all_to_all_single(out, x.contiguous(), list(received), list(sent), group=group)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        sent, received = ctx.splits
        back = _Exchange.apply(grad, received, sent, ctx.group)  # type: ignore[no-untyped-call]
        return back, None, None, None


def exchange(x: Tensor, sent: Sequence[int], received: Sequence[int], group: Any) -> Tensor:
    """Send rows to the workers of a group and take theirs; gradients travel back.

    Args:
        x: [N, E], rows sorted by the worker they go to.
        sent: Rows for each worker; they sum to N.
        received: Rows from each worker.
        group: The workers.

    Returns:
        Rows sorted by the worker they came from.
    """
    return _Exchange.apply(x, sent, received, group)  # type: ignore[no-any-return, no-untyped-call]


def share_experts(model: nn.Module, size: int) -> None:
    """Share out the experts of all sparse layers, in place; every worker must call, before the engine starts.

    Args:
        model: Whole, the same on each worker, or on the meta device.
        size: Workers of a group; consecutive ranks. Divides the number of workers and of experts.

    Raises:
        RecipeError: It does not, or the model has no sparse layer.
    """
    world = dist.get_world_size()
    blocks = [module for module in model.modules() if isinstance(module, SparseMoeBlock)]
    if not blocks:
        raise RecipeError(f"parallel.expert is {size}, but the model has no experts; set it to 1")
    for name, number in (("workers", world), ("experts", blocks[0].num_experts)):
        if number % size:
            raise RecipeError(f"parallel.expert ({size}) must divide the number of {name} ({number}); change one")
    title, group, peers = _groups(size)
    for block in blocks:
        block.experts = ExpertShare(block.experts, group)
        for parameter in block.experts.parameters():
            _mark(parameter, title, peers)


def is_shared_out(parameter: Tensor) -> bool:
    """Say whether a parameter is a share of experts.

    Args:
        parameter: Of the model, whole or partitioned.

    Returns:
        Whether `share_experts` made it.
    """
    return not getattr(parameter, "allreduce", True)


def group_of(parameter: Any) -> Any:
    """Give the workers among whom a parameter's experts are shared out.

    Args:
        parameter: For which `is_shared_out` holds.

    Returns:
        torch's process group.
    """
    from deepspeed.utils import groups

    return groups._get_expert_parallel_group(parameter.group_name)


def share_of(parameter: Tensor, whole: Tensor) -> Tensor:
    """Cut this worker's share out of a whole tensor.

    Args:
        parameter: Of the model.
        whole: Its full tensor, [X, ...] for experts.

    Returns:
        A view: [L, ...] for experts, all of it for other parameters.
    """
    return _cut(whole, group_of(parameter)) if is_shared_out(parameter) else whole


def whole_of(parameter: Tensor, share: Tensor) -> Tensor:
    """Bring the shares of a group together; every worker of it must call.

    Args:
        parameter: Of the model.
        share: Its content on this worker, gathered where ZeRO-3 has partitioned it.

    Returns:
        [X, ...] for experts, on every worker; for other parameters the share itself.
    """
    if not is_shared_out(parameter):
        return share
    group = group_of(parameter)
    parts = [torch.empty_like(share) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, share.contiguous(), group=group)
    return torch.cat(parts)


def separate_experts(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Split parameter groups so that experts that are shared out stand by themselves, as DeepSpeed wants it.

    Args:
        groups: For an optimiser.

    Returns:
        Groups with the same settings; those of experts with DeepSpeed's two words for them.
    """
    result = []
    for group in groups:
        experts = [parameter for parameter in group["params"] if is_shared_out(parameter)]
        others = [parameter for parameter in group["params"] if not is_shared_out(parameter)]
        result += [group | {"params": others}] if others else []
        result += [group | {"params": experts, "moe": True, "name": experts[0].group_name}] if experts else []
    return result


@contextlib.contextmanager
def engine_of_experts(model: nn.Module, zero_stage: int) -> Iterator[None]:
    """Tell DeepSpeed, while an engine starts, that the model has experts.

    Up to stage 2 it looks for a module of its own class before it heeds the groups of experts; stage 3 goes by the
    marks on the parameters, and refuses that class.

    Args:
        model: After `share_experts`, or without experts.
        zero_stage: Of the engine.

    Yields:
        Nothing.

    Raises:
        RecipeError: Stage 0 with experts that are shared out: nobody would sum the norm of their gradients.
    """
    shares = [module for module in model.modules() if isinstance(module, ExpertShare)]
    if shares and zero_stage == 0:
        raise RecipeError("parallel.expert shares experts out under ZeRO only; set parallel.zero_stage to 1, 2 or 3")
    if not shares or zero_stage == 3:
        yield
        return
    from deepspeed.moe.layer import MoE

    class _Share(ExpertShare, MoE):  # type: ignore[misc]
        num_experts = 1

        def set_deepspeed_parallelism(self, use_data_before_expert_parallel_: bool = False) -> None:
            """The groups are there already."""

    for share in shares:
        share.__class__ = _Share
    try:
        yield
    finally:
        for share in shares:
            share.__class__ = ExpertShare


@contextlib.contextmanager
def plain_checkpoint(engine: Any) -> Iterator[None]:
    """Have DeepSpeed save and load experts like other weights: by the optimiser's shards, of which each worker has one.

    Otherwise it would look for the modules of its own mixture of experts.

    Args:
        engine: DeepSpeed's.

    Yields:
        Nothing.
    """
    before, engine.has_moe_layers = engine.has_moe_layers, False
    try:
        yield
    finally:
        engine.has_moe_layers = before


def refresh_experts(engine: Any) -> None:
    """Make the weights anew from the optimiser's, after loading: up to stage 2 the file of weights is one worker's.

    Args:
        engine: DeepSpeed's, after `load_checkpoint`; every worker must call.
    """
    if engine.has_moe_layers and engine.zero_optimization_stage() < 3:
        engine.optimizer.update_lp_params()


def _groups(size: int) -> tuple[str, Any, Any]:
    """Make DeepSpeed's groups: the name, those who share out experts, those who keep the same ones."""
    import deepspeed
    from deepspeed.utils import groups

    deepspeed.init_distributed(verbose=False)  # its own face of torch's process group
    groups._create_expert_and_data_parallel(size)
    title = f"ep_size_{size}"
    return title, groups._get_expert_parallel_group(title), groups._get_expert_data_parallel_group(title)


def _mark(parameter: Any, title: str, peers: Any) -> None:
    """Put the marks on an expert's parameter that DeepSpeed reads: up to stage 2 the first two, stage 3 the others."""
    parameter.allreduce, parameter.group_name = False, title
    parameter.ds_zero_placement_family = "autoep_expert"
    parameter.ds_zero_partition_group_name = title
    parameter.ds_zero_partition_process_group = peers


def _cut(whole: Tensor, group: Any) -> Tensor:
    return whole.chunk(dist.get_world_size(group))[dist.get_rank(group)]
