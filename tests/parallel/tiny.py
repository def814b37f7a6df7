"""A tiny model, its batches, and training it in one process by plain torch: what every spread engine must equal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from qwen_core.model import IGNORE, CausalLM, ModelConfig
from qwen_core.model.moe import router_of
from qwen_core.parallel.engine import Batch, Objective
from qwen_core.parallel.optimisers import Optimisation, make_optimiser

VOCAB = 64
LENGTH = 16
# A large eps: Adam divides by a gradient's own size, so that where it is all but zero, as of a key's bias, rounding
# alone would decide the update
OPTIM = Optimisation(learning_rate=1e-2, weight_decay=0.1, grad_clip=0.5, eps=1e-5)
RATES = (0.5, 1.0, 0.7)


@dataclass
class Outcome:
    """What a run gave: by step, and at the end."""

    losses: list[float] = field(default_factory=list)
    figures: list[dict[str, float]] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    measured: Tensor | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)


def tiny_config(**changes: Any) -> ModelConfig:
    """Give the figures of a model of three layers, eight heads and four key heads."""
    figures: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
        "model_type": "qwen3",
    }
    return ModelConfig(**figures | changes)


def tiny_model(config: ModelConfig) -> CausalLM:
    """Build the whole model, with weights large enough to matter."""
    torch.manual_seed(1)
    model = CausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn(weight.shape) * 0.08 + (1.0 if "norm" in name else 0.0))
    return model


def make_batches(step: int, count: int = 4, rows: int = 2, length: int = LENGTH) -> list[Batch]:
    """Make the micro-batches of a step: packed documents, and labels of which more and more count nothing."""
    generator = torch.Generator().manual_seed(100 + step)
    batches = []
    for number in range(count):
        ids = torch.randint(0, VOCAB, (rows, length), generator=generator)
        segments = (torch.rand(rows, length, generator=generator) < 0.15).long().cumsum(1)
        labels = ids.clone()
        labels[:, : 3 * number] = IGNORE
        counted = float((labels[:, 1:] != IGNORE).sum())
        batches.append(Batch(ids, labels, segments, counted, ids.numel(), {"weight": torch.tensor(1.0 + number)}))
    return batches


def criterion(losses: Tensor, batch: Batch) -> Objective:
    """Sum the losses; count the confident tokens as a further figure."""
    return Objective(losses.sum(), {"squares": losses.detach().square().sum()})


def share(batches: Sequence[Batch], rank: int, size: int) -> list[Batch]:
    """Deal micro-batches out to one share."""
    return list(batches[rank::size])


def three_steps() -> list[list[Batch]]:
    """Make the steps that are trained where nothing else is said."""
    return [make_batches(step) for step in range(len(RATES))]


def uneven_steps() -> list[list[Batch]]:
    """Make three steps: four micro-batches, two, and four of which two are longer and two have fewer rows."""
    uneven = make_batches(3, count=2, rows=3, length=19) + make_batches(4, count=2, rows=1)
    return [make_batches(0), make_batches(1, count=2), uneven]


def train_alone(
    config: ModelConfig,
    optim: Optimisation = OPTIM,
    rates: Sequence[float] = RATES,
    steps: Sequence[list[Batch]] | None = None,
) -> Outcome:
    """Train in this process: one gradient of the whole batch, clipped, one step of the same optimiser."""
    model, outcome = tiny_model(config), Outcome()
    router = router_of(model, "micro_batch")  # the whole batch's balance depends on which pass comes first
    optimiser = make_optimiser(model.named_parameters(), optim)
    for batches, rate in zip(steps or three_steps(), rates, strict=True):
        count = sum(batch.count for batch in batches)
        if router is not None:
            router.start_step()
            router.scale = 1 / len(batches)
        sums = [criterion(model(b.input_ids, segment_ids=b.segment_ids, labels=b.labels), b) for b in batches]
        loss = sum(one.loss for one in sums) / count
        optimiser.zero_grad()
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), optim.grad_clip or math.inf))
        for group in optimiser.param_groups:
            group["lr"] = rate * group["peak_lr"]
        optimiser.step()
        outcome.losses.append(float(loss.detach()))
        outcome.norms.append(norm)
        outcome.figures.append({"squares": float(sum(one.figures["squares"] for one in sums)) / count})
    last = make_batches(9)[0]
    with torch.no_grad():
        outcome.measured = model(last.input_ids, segment_ids=last.segment_ids, labels=last.labels)
    outcome.weights = {name: weight.detach() for name, weight in model.named_parameters()}
    return outcome


def train_spread(engine: Any, rates: Sequence[float] = RATES, steps: Sequence[list[Batch]] | None = None) -> Outcome:
    """Train the same through an engine; every worker calls it."""
    outcome = Outcome()
    for batches, rate in zip(steps or three_steps(), rates, strict=True):
        mine = share(batches, engine.shard.rank, engine.shard.size)
        done = engine.step(mine, criterion, rate=rate)
        assert done.is_applied
        outcome.losses.append(done.loss)
        outcome.norms.append(done.grad_norm)
        outcome.figures.append(done.figures)
    outcome.measured = engine.measure(make_batches(9)[0])
    outcome.weights = dict(engine.parameters())
    return outcome


def assert_equal(spread: Sequence[Outcome], alone: Outcome, tolerance: float = 2e-6) -> None:
    """Compare all workers' figures, and rank 0's weights, with those of one process."""
    for rank, outcome in enumerate(spread):
        told = f"rank {rank}: {outcome.losses} {outcome.norms}, alone {alone.losses} {alone.norms}"
        assert torch.allclose(torch.tensor(outcome.losses), torch.tensor(alone.losses), rtol=tolerance), told
        assert torch.allclose(torch.tensor(outcome.norms), torch.tensor(alone.norms), rtol=5 * tolerance), told
        for mine, theirs in zip(outcome.figures, alone.figures, strict=True):
            assert math.isclose(mine["squares"], theirs["squares"], rel_tol=5 * tolerance)
        assert outcome.measured is not None and alone.measured is not None
        assert torch.allclose(outcome.measured, alone.measured, atol=20 * tolerance), told
    assert set(spread[0].weights) == set(alone.weights)
    for name, weight in alone.weights.items():
        gap = float((spread[0].weights[name] - weight).abs().max())
        assert gap < 20 * tolerance, f"{name} differs by {gap}"
    assert all(not outcome.weights for outcome in spread[1:])
