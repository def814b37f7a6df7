"""The engine that a recipe asks for."""

from __future__ import annotations

from typing import Any

import torch

from qwen_core.config.parallel import Parallel
from qwen_core.config.training import Optimiser
from qwen_core.model import CausalLM
from qwen_core.parallel.engine import Engine
from qwen_core.parallel.layout import Source
from qwen_core.parallel.optimisers import Optimisation
from qwen_core.parallel.zero import Zero, ZeroEngine


def make_engine(model: CausalLM, settings: Optimiser, parallel: Parallel, source: Source | None = None) -> Engine:
    """Spread a model as a recipe says; the process group must be up.

    Args:
        model: Whole and the same on each worker, or on the meta device.
        settings: The stage's recipe section.
        parallel: The recipe's.
        source: Gives whole parameters by name, for a model on the meta device.

    Returns:
        The engine.
    """
    if parallel.is_three_dimensional:
        return _pipe(model, settings, parallel, source)
    zero = Zero(
        stage=parallel.zero_stage,
        offload_optimizer=parallel.offload_optimizer,
        offload_parameters=parallel.offload_parameters,
        nvme_path=parallel.nvme_path,
    )
    if settings.compile:
        compile_layers(model)
    return ZeroEngine(
        model,
        zero=zero,
        precision=settings.precision,
        optim=optimisation_of(settings),
        use_gpu=parallel.use_gpu,
        source=source,
    )


def _pipe(model: CausalLM, settings: Optimiser, parallel: Parallel, source: Source | None) -> Engine:
    from qwen_core.parallel.pipe_engine import PipeEngine

    state = model.state_dict()
    kwargs: dict[str, Any] = {
        "pipeline": parallel.pipeline,
        "tensor": parallel.tensor,
        "optim": optimisation_of(settings),
        "precision": settings.precision,
        "micro_batch_size": settings.micro_batch_size,
        "sequence_parallel": parallel.sequence_parallel,
        "use_gpu": parallel.use_gpu,
    }
    return PipeEngine(model.config, source or state.__getitem__, **kwargs)


def optimisation_of(settings: Optimiser) -> Optimisation:
    """Tell the optimiser's side of a recipe section."""
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
    )


def compile_layers(model: CausalLM) -> None:
    """Have torch compile each layer in place: all are alike, so that one compilation serves them all.

    Args:
        model: Its layers' names stay as they are.
    """
    torch._dynamo.config.inline_inbuilt_nn_modules = True  # without it each layer would be compiled by itself
    for layer in model.model.layers:
        layer.compile(dynamic=None)
