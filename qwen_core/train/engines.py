"""The engine that a recipe asks for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qwen_core.config.parallel import Parallel
from qwen_core.config.training import Optimiser
from qwen_core.model import CausalLM
from qwen_core.model.moe import router_of
from qwen_core.parallel.engine import Engine
from qwen_core.parallel.layout import Source
from qwen_core.parallel.optimisers import Optimisation
from qwen_core.parallel.zero import Zero, ZeroEngine


def make_engine(
    model: CausalLM,
    settings: Optimiser,
    parallel: Parallel,
    source: Source | None = None,
    scales: Mapping[str, float] = MappingProxyType({}),
) -> Engine:
    """Spread a model as a recipe says; the process group must be up.

    Args:
        model: Whole and the same on each worker, or on the meta device.
        settings: The stage's recipe section.
        parallel: The recipe's.
        source: Gives whole parameters by name, for a model on the meta device.
        scales: Factors on the learning rate by parameter name (muP).

    Returns:
        The engine.
    """
    optim = optimisation_of(settings, scales)
    if parallel.is_three_dimensional:
        return _pipe(model, settings, parallel, optim, source)
    zero = Zero(
        stage=parallel.zero_stage,
        offload_optimizer=parallel.offload_optimizer,
        offload_parameters=parallel.offload_parameters,
        nvme_path=parallel.nvme_path,
        expert=parallel.expert,
    )
    if settings.compile:
        model.compile_layers()
    return ZeroEngine(
        model,
        zero=zero,
        precision=settings.precision,
        optim=optim,
        use_gpu=parallel.use_gpu,
        source=source,
    )


def _pipe(
    model: CausalLM, settings: Optimiser, parallel: Parallel, optim: Optimisation, source: Source | None
) -> Engine:
    from qwen_core.parallel.pipe_engine import PipeEngine

    router = router_of(model)
    kwargs: dict[str, Any] = {
        "pipeline": parallel.pipeline,
        "tensor": parallel.tensor,
        "optim": optim,
        "precision": settings.precision,
        "micro_batch_size": settings.micro_batch_size,
        "sequence_parallel": parallel.sequence_parallel,
        "gradient_checkpointing": model.gradient_checkpointing,
        "balance": None if router is None else router.balance,
        "use_gpu": parallel.use_gpu,
    }
    return PipeEngine(model.config, source or model.state_dict().__getitem__, **kwargs)


def optimisation_of(settings: Optimiser, scales: Mapping[str, float] = MappingProxyType({})) -> Optimisation:
    """Tell the optimiser's side of a recipe section.

    Args:
        settings: The section.
        scales: Factors on the learning rate by parameter name.

    Returns:
        What the optimiser needs to know.
    """
    return Optimisation(
        name=settings.optimizer,
        learning_rate=settings.learning_rate,
        muon_learning_rate=settings.muon_learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        decay_embeddings=settings.decay_embeddings,
        grad_clip=settings.grad_clip,
        momentum=settings.muon_momentum,
        scales=scales,
    )
