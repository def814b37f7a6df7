"""Where each parameter's numbers lie in a worker's optimiser (DeepSpeed 0.19.8), to be filled from outside.

Which optimiser there is for which plan: see `gradients`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FP32 = "fp32"
"""Kind of the weights proper, beside the kinds of the optimiser's states."""


@dataclass(frozen=True)
class Slot:
    """Where a run of a parameter's numbers lies in this worker's optimiser."""

    flat: Tensor
    start: int
    offset: int
    size: int


def slots(inner: Any) -> Iterator[tuple[str, Slot]]:
    """Walk through this worker's optimiser.

    Args:
        inner: DeepSpeed's engine.

    Yields:
        The engine's name of a parameter, and which of its numbers lie here.
    """
    optimizer = inner.optimizer
    if inner.zero_optimization_stage() == 3:
        yield from _slots_of_stage_three(inner)
        return
    groups = getattr(optimizer, "bit16_groups", None) or getattr(optimizer, "bf16_groups", None)
    if groups is None:
        yield from slots_without_zero(inner)
        return
    flats = getattr(optimizer, "single_partition_of_fp32_groups", None)
    for number, flat in enumerate(optimizer.fp32_groups_flat_partition if flats is None else flats):
        for parameter in groups[number]:
            mapping = parameter._hp_mapping
            if mapping is not None:
                here, there = mapping.hp_fragment_address, mapping.lp_fragment_address
                yield inner.param_names[parameter], Slot(flat, there.start, here.start, here.numel)


def _slots_of_stage_three(inner: Any) -> Iterator[tuple[str, Slot]]:
    optimizer = inner.optimizer
    for flat, parameters in zip(optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups, strict=True):
        offset = 0
        for parameter in parameters:
            size = parameter.partition_numel()
            start = size * torch.distributed.get_rank(parameter.ds_process_group)
            held = min(size, parameter.ds_numel - start)
            if held > 0:
                yield inner.param_names[parameter], Slot(flat, start, offset, held)
            offset += size


def slots_without_zero(inner: Any) -> Iterator[tuple[str, Slot]]:
    """Walk through an optimiser that holds whole parameters, in its own order.

    Args:
        inner: DeepSpeed's engine, at stage 0.

    Yields:
        The engine's name of a parameter, and all of its numbers.
    """
    optimizer = inner.optimizer
    halves = [parameter for group in getattr(optimizer, "fp16_groups", []) for parameter in group]
    masters = [weight for group in getattr(optimizer, "fp32_groups", []) for weight in group]
    plain = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    pairs = zip(halves, masters, strict=True) if masters else zip(plain, plain, strict=True)
    names = {parameter: name for name, parameter in inner.module.named_parameters()}
    for parameter, master in pairs:
        yield names[parameter], Slot(master, 0, 0, master.numel())


@torch.no_grad()
def fill(optimizer: Any, slot: Slot, kind: str, share: Tensor, steps: Tensor | None) -> None:
    """Copy a run of numbers to its place, which is made where the optimiser has none yet.

    Args:
        optimizer: DeepSpeed's.
        slot: The place.
        kind: `FP32`, or a state of the optimiser such as `exp_avg`.
        share: What this worker's tensor group place holds of the parameter, flattened.
        steps: Optimiser steps that the parameter took; `None` where it never got a gradient.
    """
    basis = getattr(optimizer, "optimizer", optimizer)  # torch's, inside DeepSpeed's
    if kind == FP32:
        target = slot.flat
    else:
        state = basis.state[slot.flat]
        if steps is not None:
            state["step"] = steps.clone()
        if kind not in state:
            state[kind] = torch.zeros_like(slot.flat)
        target = state[kind]
    target.view(-1)[slot.offset :][: slot.size] = share[slot.start :][: slot.size].to(target)


@torch.no_grad()
def refresh(inner: Any) -> None:
    """Make the weights of the training dtype anew from the fp32 ones; every worker must call.

    Needed after DeepSpeed's own loading too: a pipeline saves no weights of layers that are tied by a `forward_fn`, so
    that an embedding which is the head too would stay as it was initialised until the first step.

    Args:
        inner: DeepSpeed's engine.
    """
    optimizer = inner.optimizer
    if inner.zero_optimization_stage() == 3:
        for number, flat in enumerate(optimizer.fp32_partitioned_groups_flat):
            halves = optimizer.fp16_partitioned_groups_flat[number]
            halves.data.copy_(flat.data)
            parts = optimizer.unflatten(halves, optimizer.fp16_partitioned_groups[number])
            for target, part in zip(optimizer.fp16_partitioned_groups[number], parts, strict=True):
                target.data = part.data
        return
    if hasattr(optimizer, "update_lp_params"):
        optimizer.update_lp_params()
        if hasattr(optimizer, "_link_all_hp_params"):
            optimizer._link_all_hp_params()
        return
    for halves, masters in zip(
        getattr(optimizer, "fp16_groups", []), getattr(optimizer, "fp32_groups", []), strict=True
    ):
        for half, master in zip(halves, masters, strict=True):
            half.data.copy_(master.data)
