"""What lies inside DeepSpeed's optimizers (0.19.8): dropping gradients, their norm.

The engine is spread by one of these, and each keeps its things elsewhere:

    fp32, stage 0: the optimiser itself          bf16, fp16, stage 0: FP16_UnfusedOptimizer
    bf16, stage 1: BF16_Optimizer                otherwise stages 1, 2: DeepSpeedZeroOptimizer; 3: ..._Stage3
"""

from __future__ import annotations

from typing import Any

import torch


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
