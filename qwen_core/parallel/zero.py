"""DeepSpeed ZeRO: the engine from plain arguments, and the full weights back from it.

ZeRO (Rajbhandari et al., 2020) spreads optimiser state (stage 1), gradients (2) and weights (3) over the workers.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn


def make_engine(
    model: nn.Module,
    *,
    zero_stage: int,
    precision: str,
    micro_batch_size: int,
    gradient_accumulation_steps: int,
    optimizer: str,
    learning_rate: float,
    muon_learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    grad_clip: float,
    use_gpu: bool,
) -> Any:
    """Wrap a model into a DeepSpeed engine with its optimizer; the process group must be up.

    Args:
        model: Full weights in fp32, the same on each worker.
        zero_stage: 0 to 3.
        precision: `bf16` (fp32 master weights) or `fp32`.
        micro_batch_size: Sequences in one pass on one worker.
        gradient_accumulation_steps: Passes in one optimiser step.
        optimizer: `adamw`, or `muon` for the layers' matrices with AdamW for the rest.
        learning_rate: A start; the loop sets it at each step.
        muon_learning_rate: The same for Muon's groups, which carry `use_muon`.
        betas: AdamW's.
        weight_decay: Of matrices; norms decay nothing.
        grad_clip: Largest global gradient norm; not with Muon.
        use_gpu: Otherwise DeepSpeed is told to run on the CPU.

    Returns:
        The engine.
    """
    if not use_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"  # it would look for a device of its own and warn
    import deepspeed

    if not use_gpu:
        # Its shared-memory collectives are compiled at the first start (40 s, a compiler at run time); gloo will do.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        # Muon's iteration is marked for torch.compile, which on a CPU takes longer to compile than a short run lasts.
        torch._dynamo.config.disable = True
    config = {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        # DeepSpeed takes the norm after Muon has made its update, whose size is fixed: clipping would undo it
        "gradient_clipping": 0.0 if optimizer == "muon" else grad_clip,
        "bf16": {"enabled": precision == "bf16"},
        "zero_optimization": {
            "stage": zero_stage,
            "contiguous_gradients": True,
            "overlap_comm": use_gpu,  # needs streams
            "reduce_scatter": optimizer != "muon",  # Muon needs whole gradients
            "stage3_param_persistence_threshold": 10_000,
        },
        "optimizer": _optimizer(optimizer, learning_rate, muon_learning_rate, betas),
        "steps_per_print": 2**31 - 1,
        "wall_clock_breakdown": False,
    }
    engine, *_ = deepspeed.initialize(model=model, model_parameters=_groups(model, weight_decay), config=config)
    return engine


def gather_state(engine: Any) -> dict[str, Tensor] | None:
    """Collect the full weights; every worker must call this.

    Args:
        engine: As `make_engine` gave it.

    Returns:
        The state dict in the training dtype on rank 0, `None` elsewhere.
    """
    import deepspeed

    is_first = torch.distributed.get_rank() == 0
    state = {}
    for name, parameter in engine.module.named_parameters(remove_duplicate=True):
        with deepspeed.zero.GatheredParameters([parameter], enabled=engine.zero_optimization_stage() == 3):
            if is_first:
                state[name] = parameter.detach().cpu().clone()
    return state if is_first else None


def _optimizer(name: str, rate: float, muon_rate: float, betas: tuple[float, float]) -> dict[str, Any]:
    """Name the optimizer as DeepSpeed wants it."""
    # torch's own AdamW: DeepSpeed's fused ones are compiled at the first start, which takes minutes
    adamw = {"lr": rate, "betas": list(betas), "eps": 1e-8, "torch_adam": True}
    if name == "adamw":
        return {"type": "AdamW", "params": adamw}
    return {"type": "Muon", "params": adamw | {"adam_lr": rate, "muon_lr": muon_rate, "momentum": 0.95}}


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters into those that decay (matrices) and those that do not (norms)."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
