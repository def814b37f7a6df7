"""How DeepSpeed is started, whichever engine it is for: imported for its device, and configured."""

from __future__ import annotations

import os
from typing import Any

from qwen_core.parallel.optimisers import Optimisation


def start_deepspeed(use_gpu: bool) -> Any:
    """Import DeepSpeed for the device that will be used; before any other import of it.

    Args:
        use_gpu: Otherwise it is told to run on the CPU.

    Returns:
        The module.
    """
    if not use_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"  # it would look for a device of its own and warn
    os.environ.setdefault("LOCAL_RANK", "0")
    import deepspeed

    if not use_gpu:
        # Its shared-memory collectives are compiled at the first start (40 s, a compiler at run time); gloo will do.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def deepspeed_config(
    precision: str, optim: Optimisation, zero_optimization: dict[str, Any], micro_batch_size: int = 1
) -> dict[str, Any]:
    """Write DeepSpeed's configuration.

    Args:
        precision: `bf16` or `fp16` with fp32 master weights, or `fp32`.
        optim: The optimiser; it is ours, and DeepSpeed clips for it.
        zero_optimization: DeepSpeed's section of that name.
        micro_batch_size: Sequences in one pass, where DeepSpeed has to know.

    Returns:
        The configuration.
    """
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": 1,  # told anew at each step
        "gradient_clipping": optim.grad_clip,
        "bf16": {"enabled": precision == "bf16", "check_grad_overflow": True},
        "fp16": {"enabled": precision == "fp16", "initial_scale_power": 16, "hysteresis": 1},
        "zero_optimization": zero_optimization,
        "zero_allow_untested_optimizer": True,  # LAMB and Muon here know about partitions
        "zero_force_ds_cpu_optimizer": False,  # its own is compiled at the first start; torch's is fused too
        "steps_per_print": 2**31 - 1,
        "wall_clock_breakdown": False,
    }
    if zero_optimization["stage"] > 0:
        config["data_types"] = {"grad_accum_dtype": "fp32"}  # bf16 sums lose small passes
    return config
