"""What lies inside DeepSpeed's optimizers (0.19.8): dropping gradients, their norm, which piece lies where.

The engine is spread by one of these, and each keeps its things elsewhere:

    fp32, stage 0: the optimiser itself          bf16, fp16, stage 0: FP16_UnfusedOptimizer
    bf16, stage 1: BF16_Optimizer                otherwise stages 1, 2: DeepSpeedZeroOptimizer; 3: ..._Stage3
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from qwen_core.parallel.pieces import Layout, cut


def loss_scale(engine: Any) -> float:
    """Tell what a loss is multiplied by before its backward pass; 1 unless fp16."""
    return float(engine.optimizer.loss_scale) if engine.fp16_enabled() else 1.0


def drop(engine: Any) -> None:
    """Throw away the gradients of this step, as an overflow of fp16 would, but leave the loss scale as it is.

    Args:
        engine: DeepSpeed's, after the last backward pass of a step.
    """
    optimizer = engine.optimizer
    if engine.zero_optimization_stage() == 3:
        optimizer._pre_step()
        optimizer._partition_all_parameters()
        optimizer._overflow_clean_up(optimizer.loss_scale)
    elif hasattr(optimizer, "clear_hp_grads"):
        optimizer.clear_hp_grads()
        optimizer.clear_lp_grads()
    elif hasattr(optimizer, "all_grad_tensors"):
        _drop_of_stage_two(optimizer)
    else:
        engine.zero_grad()
    engine._step_applied = False


def forget_first_step(engine: Any) -> None:
    """Undo the step without gradients that `FP16_UnfusedOptimizer` takes when it is made, to have its states there.

    It decays the master weights once, and Adam's correction of its bias would be one step ahead.

    Args:
        engine: DeepSpeed's, just started.
    """
    optimizer = engine.optimizer
    if hasattr(optimizer, "fp32_groups") and hasattr(optimizer, "fp16_groups"):
        optimizer.optimizer.state.clear()
        for masters, weights in zip(optimizer.fp32_groups, optimizer.fp16_groups, strict=True):
            for master, weight in zip(masters, weights, strict=True):
                master.data.copy_(weight.data)


def norm_without_zero(engine: Any) -> float | None:
    """Take the gradients' norm where DeepSpeed does not: in fp32 without ZeRO.

    Args:
        engine: DeepSpeed's.

    Returns:
        The norm before clipping; `None` where DeepSpeed takes it itself.
    """
    if engine.zero_optimization() or engine.fp16_enabled() or engine.bfloat16_enabled():
        return None
    found = [parameter.grad for parameter in engine.module.parameters() if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(found))


def layouts(engine: Any) -> dict[Tensor, Layout]:
    """Say which matrices each flat tensor of the optimiser is cut from.

    Args:
        engine: DeepSpeed's, just started.

    Returns:
        Layouts by flat tensor; empty where the optimiser holds whole parameters.
    """
    optimizer = engine.optimizer
    if engine.zero_optimization_stage() == 3:
        return dict(_of_stage_three(optimizer))
    groups = getattr(optimizer, "bit16_groups", None) or getattr(optimizer, "bf16_groups", None)
    if groups is None:
        return {}
    flats = getattr(optimizer, "single_partition_of_fp32_groups", None)
    flats = optimizer.fp32_groups_flat_partition if flats is None else flats
    result = {}
    for flat, parameters, group in zip(flats, groups, optimizer.real_dp_process_group, strict=True):
        fragments = []
        for number, parameter in enumerate(parameters):
            mapping = parameter._hp_mapping
            if mapping is not None:
                here, there = mapping.hp_fragment_address, mapping.lp_fragment_address
                fragments.append((number, there.start, here.start, here.numel))
        result[flat] = cut([parameter.shape for parameter in parameters], fragments, group)
    return result


def _of_stage_three(optimizer: Any) -> Iterator[tuple[Tensor, Layout]]:
    """Stage 3 cuts each parameter alone into equal parts, the last one filled up with zeros."""
    for flat, parameters in zip(optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups, strict=True):
        fragments, offset = [], 0
        for number, parameter in enumerate(parameters):
            size = parameter.partition_numel()
            start = size * dist.get_rank(parameter.ds_process_group)
            held = min(size, parameter.ds_numel - start)
            if held > 0:
                fragments.append((number, start, offset, held))
            offset += size
        yield flat, cut([parameter.ds_shape for parameter in parameters], fragments, parameters[0].ds_process_group)


def _drop_of_stage_two(optimizer: Any) -> None:
    """Do what `DeepSpeedZeroOptimizer.step` does when it finds an overflow, without a new loss scale."""
    from deepspeed.runtime.zero.stage_1_and_2 import INITIAL_MICRO_STEP_ID

    optimizer.micro_step_id = INITIAL_MICRO_STEP_ID
    optimizer._wait_for_offload_copies()
    optimizer.zero_grad(set_to_none=True)
    optimizer._release_preflattened_grad_buffers()
    if optimizer.cpu_offload:
        optimizer._offload_accumulated_param_ids = set()
        optimizer.reset_cpu_buffers()
        return
    for number in optimizer.averaged_gradients:
        optimizer.averaged_gradients[number] = None
        optimizer.all_grad_tensors[number] = None
