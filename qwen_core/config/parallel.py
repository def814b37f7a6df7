"""Recipe section `parallel`: how a model is spread over workers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from qwen_core.config.base import Count, Section


class Parallel(Section):
    """How a model is spread over workers."""

    num_workers: Count = Field(2, description="Processes that Ray Train starts.")
    use_gpu: bool = Field(False, description="One GPU for each worker.")
    cpus_per_worker: float = Field(1.0, gt=0, description="Ray's share for each.")
    threads_per_worker: Count = Field(1, description="torch's threads in each.")
    zero_stage: Literal[0, 1, 2, 3] = Field(
        3, description="DeepSpeed: 1 spreads optimizer state, 2 gradients, 3 weights."
    )
