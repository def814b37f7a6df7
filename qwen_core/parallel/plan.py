"""Which plans can run a model: every rule that a plan breaks, told before anything starts, with the nearest that fits.

model, spread, work, cluster ─▶ faults by rule ─▶ none: fine
                                    └─ else: search over tensor x pipeline x workers ─▶ RecipeError
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from qwen_core.errors import RecipeError
from qwen_core.model import ModelConfig


@dataclass(frozen=True)
class Spread:
    """How a model is to be spread, in the words of the recipe's section `parallel`.

    Attributes:
        num_workers: Processes.
        tensor: Workers that split each layer.
        pipeline: Stages of consecutive layers.
        expert: Workers that share out a layer's experts.
        zero_stage: 0 to 3.
        sequence_parallel: Whether norms and residuals are split along the sequence.
        offload_optimizer: `none`, `cpu` or `nvme`.
        offload_parameters: The same.
        nvme_path: Folder for `nvme`.
        use_gpu: One GPU for each worker.
        cpus_per_worker: CPUs for each.
    """

    num_workers: int = 1
    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    zero_stage: int = 3
    sequence_parallel: bool = False
    offload_optimizer: str = "none"
    offload_parameters: str = "none"
    nvme_path: str = ""
    use_gpu: bool = False
    cpus_per_worker: float = 1.0

    @property
    def is_three_dimensional(self) -> bool:
        """Whether the model is split by layers or inside them."""
        return self.tensor * self.pipeline > 1

    @property
    def data(self) -> int:
        """Copies of the model, each with its own share of a batch."""
        return max(1, self.num_workers // (self.tensor * self.pipeline))


@dataclass(frozen=True)
class Work:
    """What is to be done with the model, in the words of a training stage's section.

    Attributes:
        stage: The stage's word.
        micro_batch_size: Sequences of one pass.
        global_batch_size: Sequences of one optimiser step.
        batch_ramp_start: Sequences of the first step; `None` without a ramp.
        optimizer: `adamw`, `lamb` or `muon`.
        compile: Whether layers are compiled.
        has_adapters: Whether LoRA trains.
    """

    stage: str
    micro_batch_size: int = 1
    global_batch_size: int = 1
    batch_ramp_start: int | None = None
    optimizer: str = "adamw"
    compile: bool = False
    has_adapters: bool = False


@dataclass(frozen=True)
class Cluster:
    """What there is.

    Attributes:
        cpus: Of all machines.
        gpus: Of all machines.
    """

    cpus: float = math.inf
    gpus: float = math.inf


def check(config: ModelConfig, spread: Spread, work: Work, cluster: Cluster = Cluster()) -> None:
    """Refuse a plan that cannot run.

    Args:
        config: Of the whole model.
        spread: How it is to be spread.
        work: What is to be done.
        cluster: Where.

    Raises:
        RecipeError: Every rule that is broken, with its values, and the nearest plan that breaks none.
    """
    faults = list(_faults(config, spread, work, cluster))
    if not faults:
        return
    nearest = nearest_plan(config, spread, work, cluster)
    changes = [] if nearest is None else _changes(spread, work, *nearest)
    advice = f"\nThe nearest plan that fits: {', '.join(changes)}" if changes else ""
    raise RecipeError("\n".join(faults) + advice)


def nearest_plan(config: ModelConfig, spread: Spread, work: Work, cluster: Cluster) -> tuple[Spread, Work] | None:
    """Search for a plan that fits, as near as can be: first the same number of workers, then the same splits.

    Args:
        config: Of the whole model.
        spread: How it was to be spread.
        work: What is to be done.
        cluster: Where.

    Returns:
        Spread and work with as few changes as possible; `None` where nothing fits.
    """
    most = _most_workers(spread, cluster)
    found: list[tuple[float, Spread, Work]] = []
    for tensor in range(1, min(most, config.num_attention_heads) + 1):
        for pipeline in range(1, min(most // tensor, config.num_hidden_layers) + 1):
            for data in {max(1, min(spread.num_workers, most) // (tensor * pipeline)), spread.data}:
                if tensor * pipeline * data <= most:
                    other = _settled(spread, tensor, pipeline, data)
                    fitting = _batch_that_fits(work, other)
                    if not any(_faults(config, other, fitting, cluster)):
                        found.append((_distance(spread, other) + (fitting != work), other, fitting))
    return min(found, key=lambda one: one[0])[1:] if found else None


def _faults(config: ModelConfig, spread: Spread, work: Work, cluster: Cluster) -> Iterator[str]:
    """Name each broken rule."""
    yield from _faults_of_cluster(spread, work, cluster)
    yield from _faults_of_split(config, spread)
    yield from _faults_of_zero(spread)
    yield from _faults_of_work(spread, work)
    yield from _faults_of_experts(config, spread)


def _faults_of_cluster(spread: Spread, work: Work, cluster: Cluster) -> Iterator[str]:
    kind, have, each = ("GPU", cluster.gpus, 1.0) if spread.use_gpu else ("CPU", cluster.cpus, spread.cpus_per_worker)
    if spread.num_workers * each > have:
        yield (
            f"{work.stage} needs {spread.num_workers * each:g} {kind}s (parallel.num_workers={spread.num_workers}), "
            f"the Ray cluster has {have:g}; lower parallel.num_workers or add nodes"
        )


def _faults_of_split(config: ModelConfig, spread: Spread) -> Iterator[str]:
    size = spread.tensor * spread.pipeline
    if spread.num_workers % size:
        yield (
            f"parallel.num_workers ({spread.num_workers}) must be a multiple of parallel.pipeline x parallel.tensor "
            f"({spread.pipeline} x {spread.tensor} = {size}): each copy of the model takes so many workers"
        )
    if spread.pipeline > config.num_hidden_layers:
        yield (
            f"parallel.pipeline ({spread.pipeline}) must not be more than model.num_hidden_layers "
            f"({config.num_hidden_layers}): each stage needs a layer"
        )
    tensor, heads = spread.tensor, config.num_key_value_heads
    for name, value in _divided(config):
        if value % tensor:
            yield f"parallel.tensor ({tensor}) must divide model.{name} ({value})"
    if heads % tensor and tensor % heads:
        yield (
            f"parallel.tensor ({tensor}) must divide model.num_key_value_heads ({heads}) or be a multiple of it: "
            "each worker has whole key heads, or shares one"
        )
    if spread.sequence_parallel and tensor == 1:
        yield "parallel.sequence_parallel splits between the workers of parallel.tensor, which is 1; set it to false"


def _divided(config: ModelConfig) -> Iterator[tuple[str, int]]:
    """List what tensor parallelism cuts into equal parts."""
    yield "num_attention_heads", config.num_attention_heads
    yield "vocab_size", config.vocab_size
    sparse = [config.is_sparse(layer) for layer in range(config.num_hidden_layers)]
    if not all(sparse):
        yield "intermediate_size", config.intermediate_size
    if any(sparse):
        yield "moe_intermediate_size", config.moe_intermediate_size
        yield "shared_expert_intermediate_size", config.shared_expert_intermediate_size


def _faults_of_zero(spread: Spread) -> Iterator[str]:
    if spread.is_three_dimensional and spread.zero_stage > 1:
        yield (
            f"parallel.zero_stage ({spread.zero_stage}) must be 0 or 1 with parallel.pipeline ({spread.pipeline}) or "
            f"parallel.tensor ({spread.tensor}): the stages keep gradients and weights between micro-batches"
        )
    places = {"optimizer": spread.offload_optimizer, "parameters": spread.offload_parameters}
    for name, place in places.items():
        least = 3 if name == "parameters" or place == "nvme" else 1
        if place != "none" and (spread.is_three_dimensional or spread.zero_stage < least):
            yield (
                f"parallel.offload_{name} ({place}) needs parallel.zero_stage {least} or more and neither "
                f"parallel.pipeline nor parallel.tensor; zero_stage is {spread.zero_stage}, pipeline x tensor "
                f"{spread.pipeline} x {spread.tensor}"
            )
    if "nvme" in places.values() and not spread.nvme_path:
        yield "parallel.nvme_path must name a folder on a local disk where something is offloaded to nvme"


def _faults_of_work(spread: Spread, work: Work) -> Iterator[str]:
    one_pass = work.micro_batch_size * spread.data
    for key, size in (("batch_ramp_start", work.batch_ramp_start), ("global_batch_size", work.global_batch_size)):
        if size is not None and size % one_pass:
            yield (
                f"{work.stage}.{key} ({size}) must be a multiple of {work.stage}.micro_batch_size x the shares that a "
                f"batch is dealt out to ({work.micro_batch_size} x {spread.data} = {one_pass}); the nearest is "
                f"{_multiple(size, one_pass)}"
            )
    if work.optimizer != "adamw" and spread.tensor > 1:
        yield (
            f"{work.stage}.optimizer ({work.optimizer}) needs whole matrices, which parallel.tensor "
            f"({spread.tensor}) splits; take adamw, or parallel.pipeline instead of tensor"
        )
    if work.has_adapters and spread.is_three_dimensional:
        yield (
            f"{work.stage} trains LoRA adapters, which parallel.pipeline ({spread.pipeline}) and parallel.tensor "
            f"({spread.tensor}) do not know; set both to 1"
        )
    if work.compile and spread.is_three_dimensional:
        yield (
            f"{work.stage}.compile is on, but layers that are spread by parallel.pipeline ({spread.pipeline}) or "
            f"parallel.tensor ({spread.tensor}) are not compiled; set it to false"
        )


def _faults_of_experts(config: ModelConfig, spread: Spread) -> Iterator[str]:
    if spread.expert == 1:
        return
    if spread.is_three_dimensional:
        yield (
            f"parallel.expert ({spread.expert}) goes with ZeRO alone: parallel.pipeline is {spread.pipeline}, "
            f"parallel.tensor {spread.tensor}, which splits inside each expert; set one of them to 1"
        )
    if not config.num_experts:
        yield f"parallel.expert is {spread.expert}, but the model has no experts; set it to 1"
        return
    for name, value in (("parallel.num_workers", spread.num_workers), ("model.num_experts", config.num_experts)):
        if value % spread.expert:
            yield f"parallel.expert ({spread.expert}) must divide {name} ({value})"


def _most_workers(spread: Spread, cluster: Cluster) -> int:
    """Tell how many workers there may be: as many as were asked for, where the cluster has them."""
    have = cluster.gpus if spread.use_gpu else cluster.cpus / spread.cpus_per_worker
    return int(min(have, spread.num_workers)) if have >= 1 else 0


def _settled(spread: Spread, tensor: int, pipeline: int, data: int) -> Spread:
    """Change the sizes of a plan, and with them what depends on them alone."""
    is_three_dimensional = tensor * pipeline > 1
    has_offload = {spread.offload_optimizer, spread.offload_parameters} != {"none"}
    return dataclasses.replace(
        spread,
        num_workers=tensor * pipeline * data,
        tensor=tensor,
        pipeline=pipeline,
        zero_stage=min(spread.zero_stage, 1) if is_three_dimensional else 3 if has_offload else spread.zero_stage,
        sequence_parallel=spread.sequence_parallel and tensor > 1,
    )


def _batch_that_fits(work: Work, spread: Spread) -> Work:
    """Round the batch sizes to what a plan can deal out."""
    one_pass, start = work.micro_batch_size * spread.data, work.batch_ramp_start
    return dataclasses.replace(
        work,
        global_batch_size=_multiple(work.global_batch_size, one_pass),
        batch_ramp_start=None if start is None else _multiple(start, one_pass),
    )


def _multiple(size: int, of: int) -> int:
    return max(1, round(size / of)) * of


def _distance(one: Spread, other: Spread) -> float:
    """Say how far two plans are apart: by the factors between their sizes, the number of workers first."""
    ratios = [(one.num_workers, other.num_workers, 4.0), (one.tensor, other.tensor, 1.0)]
    ratios.append((one.pipeline, other.pipeline, 1.0 + 1e-6))  # of two as near, the one with the same stages
    return sum(weight * abs(math.log2(new / old)) for old, new, weight in ratios)


def _changes(spread: Spread, work: Work, other: Spread, fitting: Work) -> list[str]:
    """List the settings of the plan that fits: its sizes, and whatever else is not as it was."""
    told = [f"parallel.{name}={getattr(other, name)}" for name in ("num_workers", "pipeline", "tensor")]
    for name in ("zero_stage", "sequence_parallel"):
        if getattr(spread, name) != getattr(other, name):
            told.append(f"parallel.{name}={str(getattr(other, name)).lower()}")
    for name in ("batch_ramp_start", "global_batch_size"):
        if getattr(work, name) != getattr(fitting, name):
            told.append(f"{work.stage}.{name}={getattr(fitting, name)}")
    return told
