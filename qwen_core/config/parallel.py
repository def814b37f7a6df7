"""Recipe section `parallel`: how a model is spread over workers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from qwen_core.config.base import Count, Section

Offload = Literal["none", "cpu", "nvme"]


class Parallel(Section):
    """How a model is spread over workers.

    Two ways: ZeRO alone (`tensor` and `pipeline` of 1: every worker sees other data), or three dimensions, where
    `pipeline` x `tensor` workers hold one copy of the model and the copies share the batch.
    """

    num_workers: Count = Field(2, description="Processes that Ray Train starts.")
    use_gpu: bool = Field(False, description="One GPU for each worker.")
    cpus_per_worker: float = Field(1.0, gt=0, description="Ray's share for each.")
    threads_per_worker: Count = Field(1, description="torch's threads in each.")
    wait_for_nodes_seconds: float = Field(
        300,
        ge=0,
        description="How long a stage waits for a cluster that lacks what its workers need: nodes that start again or "
        "that an autoscaler adds. A Ray of one machine is not waited for.",
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        3,
        description="DeepSpeed: 1 spreads optimizer state, 2 gradients, 3 weights; at most 1 with tensor or pipeline.",
    )
    tensor: Count = Field(
        1, description="Workers that split each layer's matrices between them (Megatron-LM); best inside one machine."
    )
    pipeline: Count = Field(1, description="Stages of consecutive layers, each on other workers.")
    expert: Count = Field(1, description="Workers that share out a layer's experts under ZeRO; 1 keeps them together.")
    sequence_parallel: bool = Field(
        False,
        description="With tensor > 1: norms and residuals are split along the sequence too, which saves activations.",
    )
    offload_optimizer: Offload = Field(
        "none", description="Where ZeRO keeps optimizer state: on the device (none), in cpu memory or on nvme."
    )
    offload_parameters: Offload = Field(
        "none", description="The same for weights that are not in use; only with zero_stage 3."
    )
    nvme_path: str = Field("", description="Folder on a fast local disk, for nvme.")

    @property
    def is_three_dimensional(self) -> bool:
        """Whether the model is split by layers or inside them, beside ZeRO."""
        return self.tensor * self.pipeline > 1

    def shaping(self) -> dict[str, Any]:
        """Take nothing: how a model is spread changes rounding alone, and a run may go on under another plan."""
        return {}
