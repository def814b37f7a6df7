"""Where each parameter's numbers lie in a worker's optimiser (DeepSpeed 0.19.8).

    flat tensors, each cut from parameters ─▶ slots: to be filled from outside     ─▶ layouts: for LAMB and Muon

Which optimiser there is for which plan: see `gradients`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qwen_core.parallel.pieces import Layout, cut

FP32 = "fp32"
"""Kind of the weights proper, beside the kinds of the optimiser's states."""


@dataclass(frozen=True)
class Slot:
    """Where a run of a parameter's numbers lies in this worker's optimiser."""

    flat: Tensor
    start: int
    offset: int
    size: int


@dataclass(frozen=True)
class _Group:
    """A flat tensor that workers share out, and what it is cut from.

    Attributes:
        flat: What this worker has of it.
        parameters: All that it is cut from, the same on every worker.
        slots: What lies here, by the parameter's place in that list.
        workers: Process group of those that have the rest.
    """

    flat: Tensor
    parameters: Sequence[Any]
    slots: Sequence[tuple[int, Slot]]
    workers: Any


def slots(inner: Any) -> Iterator[tuple[str, Slot]]:
    """Walk through this worker's optimiser.

    Args:
        inner: DeepSpeed's engine.

    Yields:
        The engine's name of a parameter, and which of its numbers lie here.
    """
    groups = _groups(inner)
    if not groups:
        yield from slots_without_zero(inner)
    for group in groups:
        for number, slot in group.slots:
            yield inner.param_names[group.parameters[number]], slot


def layouts(inner: Any) -> dict[Tensor, Layout]:
    """Say which matrices each flat tensor of the optimiser is cut from.

    Args:
        inner: DeepSpeed's engine, just started.

    Returns:
        Layouts by flat tensor; empty where the optimiser holds whole parameters.
    """
    result = {}
    for group in _groups(inner):
        shapes = [getattr(parameter, "ds_shape", parameter.shape) for parameter in group.parameters]
        fragments = [(number, slot.start, slot.offset, slot.size) for number, slot in group.slots]
        result[group.flat] = cut(shapes, fragments, group.workers)
    return result


def _groups(inner: Any) -> list[_Group]:
    """List the flat tensors of an optimiser; none where it holds whole parameters."""
    optimizer = inner.optimizer
    if inner.zero_optimization_stage() == 3:
        pairs = zip(optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups, strict=True)
        return [_Group(flat, own, _of_stage_three(flat, own), own[0].ds_process_group) for flat, own in pairs]
    groups = getattr(optimizer, "bit16_groups", None) or getattr(optimizer, "bf16_groups", None)
    if groups is None:
        return []
    flats = getattr(optimizer, "single_partition_of_fp32_groups", None)
    flats = optimizer.fp32_groups_flat_partition if flats is None else flats
    each = zip(flats, groups, optimizer.real_dp_process_group, strict=True)
    return [_Group(flat, own, _of_mappings(flat, own), workers) for flat, own, workers in each]


def _of_stage_three(flat: Tensor, parameters: Sequence[Any]) -> list[tuple[int, Slot]]:
    """Stage 3 cuts each parameter alone into equal parts, the last one filled up with zeros."""
    found, offset = [], 0
    for number, parameter in enumerate(parameters):
        size = parameter.partition_numel()
        start = size * torch.distributed.get_rank(parameter.ds_process_group)
        held = min(size, parameter.ds_numel - start)
        if held > 0:
            found.append((number, Slot(flat, start, offset, held)))
        offset += size
    return found


def _of_mappings(flat: Tensor, parameters: Sequence[Any]) -> list[tuple[int, Slot]]:
    """Stages 1 and 2 cut all parameters laid end to end, and note at each what of it lies here."""
    found = []
    for number, parameter in enumerate(parameters):
        mapping = parameter._hp_mapping
        if mapping is not None:
            here, there = mapping.hp_fragment_address, mapping.lp_fragment_address
            found.append((number, Slot(flat, there.start, here.start, here.numel)))
    return found


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
