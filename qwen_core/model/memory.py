"""What each GPU must hold to train a model under a parallel plan, in bytes, by part.

    weights, gradients, optimiser states   ZeRO (Rajbhandari et al., 2020, arXiv 1910.02054, section 3)
    activations                            Korthikanti et al., 2022 (arXiv 2205.05198), for this decoder's operations
    logits                                 one chunk of the loss, and the head's gradient, which is made with it

An estimate for choosing a plan, not a promise: it knows nothing of fragmentation, the CUDA context (about 0.5 GB) and
communication libraries (0.5 to 2 GB). `fits` leaves a tenth of a card for them.

Legend: T tensor parallel, P pipeline stages, X expert parallel, E hidden, H heads, K key/value heads, D head dim.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from qwen_core.model.config import ModelConfig
from qwen_core.model.loss import CHUNK_BYTES
from qwen_core.model.size import Layer, Parameters, count_parameters

_BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed's default for one bucket of gradients on their way."""

_USABLE_RATIO = 0.9


@dataclass(frozen=True)
class Plan:
    """How training is laid out.

    Attributes:
        gpus: All of them; `tensor` x `pipeline` hold one copy of the model.
        zero_stage: 0 to 3.
        tensor: T.
        pipeline: P.
        expert: X, at most `data`.
        sequence_parallel: Norms and residuals are split over T too.
        is_half: bf16 or fp16 with fp32 master weights; otherwise all in fp32.
        micro_batch_size: Sequences in one pass.
        seq_len: Tokens of a sequence.
        passes: Micro-batches in one step, at least 1.
        checkpointing: Layers keep only their input.
        offload_optimizer: Optimiser states are in CPU memory or on NVMe.
        offload_parameters: Weights too, but for those in use.
    """

    gpus: int = 1
    zero_stage: int = 0
    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    sequence_parallel: bool = False
    is_half: bool = True
    micro_batch_size: int = 1
    seq_len: int = 4096
    passes: int = 1
    checkpointing: bool = False
    offload_optimizer: bool = False
    offload_parameters: bool = False

    @property
    def data(self) -> int:
        """Copies of the model that see different data."""
        return max(1, self.gpus // (self.tensor * self.pipeline))


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU.

    Attributes:
        weights: Those that it keeps.
        gathered: ZeRO-3: whole weights of the layer at work and of the next.
        gradients: Those that it keeps.
        buckets: Gradients on their way, of DeepSpeed's default size.
        optimizer: Master weights, momentum and variance.
        activations: What the backward pass needs of all passes in flight.
        logits: A chunk of them with its gradient, and the head's gradient.
    """

    weights: float
    gathered: float
    gradients: float
    buckets: float
    optimizer: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """The sum."""
        parts = (self.weights, self.gathered, self.gradients, self.buckets, self.optimizer)
        return sum(parts) + self.activations + self.logits

    def fits(self, card_bytes: float) -> bool:
        """Say whether a card holds it, with a tenth left for what is not estimated.

        Args:
            card_bytes: Of the card, such as 80e9.

        Returns:
            Whether it fits.
        """
        return self.total <= _USABLE_RATIO * card_bytes


def memory_per_gpu(config: ModelConfig, plan: Plan) -> Memory:
    """Estimate the fullest GPU's memory.

    Args:
        config: The architecture.
        plan: How training is laid out.

    Returns:
        Bytes by part, of the pipeline stage that needs most.
    """
    counts = count_parameters(config)
    return max((_of_stage(config, counts, plan, stage) for stage in range(plan.pipeline)), key=lambda m: m.total)


def activation_bytes_per_token(config: ModelConfig, layer: Layer, plan: Plan) -> float:
    """Count what one layer keeps of a token for its backward pass.

    For each operation the tensors that its gradient needs, as this decoder computes in eager mode: a norm keeps its
    input in fp32 and its result before the weight; the matrix products keep their inputs; attention, which never
    writes its scores (Dao, 2023), keeps queries, keys, values and its output; SwiGLU keeps four tensors of the
    intermediate width. Compiled, norms and SwiGLU keep about half. What lies between the projections' ends is divided
    by T; norms and residuals only with sequence parallel (arXiv 2205.05198, equations 2 and 4).

    Args:
        config: The architecture.
        layer: Its counts.
        plan: How training is laid out.

    Returns:
        Bytes.
    """
    width = 2 if plan.is_half else 4
    query, key = config.query_size, config.key_size
    outer = 2 * config.hidden_size * (4 + width + width)  # both norms, and what they hand to the projections
    inner = width * (2 * query + 2 * key)
    if config.has_qk_norm:
        inner += (4 + width) * (query + key)
    if layer.mlp:
        inner += 4 * width * config.intermediate_size
    else:
        inner += 4 * width * config.shared_expert_intermediate_size
        row = width * (2 * config.hidden_size + 4 * config.moe_intermediate_size)  # a token's copy for one expert
        inner += config.num_experts_per_tok * row + 2 * 4 * config.num_experts
    return outer / (plan.tensor if plan.sequence_parallel else 1) + inner / plan.tensor


def alternatives(config: ModelConfig, plan: Plan) -> list[Plan]:
    """List other plans for the same GPUs.

    Args:
        config: The architecture.
        plan: Kept but for its stage and its sizes of groups.

    Returns:
        ZeRO 0 to 3; for sparse models ZeRO-2 with the experts over up to 8 GPUs; and ZeRO-1 under each T and P of
        powers of 2 that divides heads, layers and GPUs.
    """
    flat = replace(plan, tensor=1, pipeline=1, expert=1, sequence_parallel=False)
    flat = replace(flat, passes=max(1, plan.passes * plan.data // flat.data))  # the same batch
    plans = [replace(flat, zero_stage=stage) for stage in range(4)]
    if config.num_experts:
        sizes = [x for x in (2, 4, 8) if config.num_experts % x == 0 and plan.gpus % x == 0]
        plans += [replace(flat, zero_stage=2, expert=size) for size in sizes]
    for tensor in (1, 2, 4, 8):
        if config.num_key_value_heads % tensor:
            continue
        for pipeline in (1, 2, 4, 8):
            together = tensor * pipeline
            if together > 1 and plan.gpus % together == 0 and config.num_hidden_layers >= pipeline:
                split = replace(flat, zero_stage=1, tensor=tensor, pipeline=pipeline, sequence_parallel=tensor > 1)
                plans.append(replace(split, passes=max(1, plan.passes * plan.data // split.data)))
    return plans


def _of_stage(config: ModelConfig, counts: Parameters, plan: Plan, stage: int) -> Memory:
    """Estimate one pipeline stage's GPU; stages get equal numbers of layers, the last ones one more."""
    layers = counts.layers[
        stage * len(counts.layers) // plan.pipeline : (stage + 1) * len(counts.layers) // plan.pipeline
    ]
    shared, routed = _held(counts, layers, plan, stage)
    width = 2 if plan.is_half else 4
    states = 12 if plan.is_half else 8
    summed = 4 if plan.zero_stage else width  # under ZeRO passes are summed in fp32: bf16 sums lose small ones
    data, expert_data = plan.data, max(1, plan.data // plan.expert)

    def spread(bytes_each: float, from_stage: int) -> float:
        is_spread = plan.zero_stage >= from_stage
        return bytes_each * (shared / (data if is_spread else 1) + routed / (expert_data if is_spread else 1))

    largest = max(_whole(layer, plan) for layer in layers)
    bucket = min(_BUCKET_ELEMENTS, shared + routed) * width if plan.zero_stage and data > 1 else 0.0
    return Memory(
        weights=0.0 if plan.offload_parameters else spread(width, 3),
        gathered=2.0 * largest * width if plan.zero_stage == 3 and data > 1 else 0.0,
        gradients=0.0 if plan.offload_optimizer and plan.zero_stage >= 2 else spread(summed, 2),
        buckets=bucket,
        optimizer=0.0 if plan.offload_optimizer else spread(states, 1),
        activations=_activations(config, layers, plan, stage),
        logits=_logits(config, plan) if stage == plan.pipeline - 1 else 0.0,
    )


def _held(counts: Parameters, layers: tuple[Layer, ...], plan: Plan, stage: int) -> tuple[float, float]:
    """Count a stage's parameters on one GPU before ZeRO: those of every token, and the routed experts'."""
    is_first, is_last = stage == 0, stage == plan.pipeline - 1
    table = counts.embedding if is_first or (is_last and not counts.head) else 0  # a tied table is on both ends
    ends = (table + (counts.head if is_last else 0)) / plan.tensor + (counts.final_norm if is_last else 0)
    shared = sum(layer.norms + layer.router + _split(layer) / plan.tensor for layer in layers)
    routed = sum(layer.num_experts * layer.expert for layer in layers) / (plan.expert * plan.tensor)
    return ends + shared, routed


def _split(layer: Layer) -> int:
    """Count what tensor parallel splits of a layer, routed experts aside."""
    return layer.attention + layer.mlp + layer.shared_expert


def _whole(layer: Layer, plan: Plan) -> float:
    """Count the parameters of a layer that is gathered."""
    return layer.outside_experts + layer.num_experts * layer.expert / plan.expert


def _activations(config: ModelConfig, layers: tuple[Layer, ...], plan: Plan, stage: int) -> float:
    """Count the bytes of all passes in flight: with P stages the first has P of them (1F1B)."""
    tokens = plan.micro_batch_size * plan.seq_len
    each = [activation_bytes_per_token(config, layer, plan) for layer in layers]
    in_flight = min(plan.pipeline - stage, plan.passes)
    if not plan.checkpointing:
        return tokens * in_flight * sum(each)
    width = 2 if plan.is_half else 4
    inputs = width * config.hidden_size * len(layers) / (plan.tensor if plan.sequence_parallel else 1)
    return tokens * (in_flight * inputs + max(each))


def _logits(config: ModelConfig, plan: Plan) -> float:
    """Count a chunk's logits in fp32, their gradient and their half-width copy; and the head's gradient."""
    width = 2 if plan.is_half else 4
    tokens = plan.micro_batch_size * plan.seq_len
    vocabulary = config.vocab_size / plan.tensor
    chunk = min(4 * tokens * vocabulary, CHUNK_BYTES["cuda"])
    return chunk * (2 + width / 4) + width * vocabulary * config.hidden_size
