"""What the workers of the experts' tests do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qwen_core.model.moe import SparseMoeBlock, router_of
from qwen_core.parallel.engine import Batch
from tests.parallel import tiny
from tests.parallel.tiny import OPTIM, VOCAB, Outcome, criterion, make_batches, share, tiny_config, tiny_model

SPARSE: dict[str, Any] = {
    "model_type": "qwen2_moe",
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
    "router_aux_loss_coef": 0.0,
}


def make_engine(size: int, stage: int, precision: str = "fp32", **zero: Any) -> Any:
    """Start an engine over the tiny sparse model, its experts shared out over `size` workers."""
    from qwen_core.parallel.zero import Zero, ZeroEngine

    model = tiny_model(tiny_config(**SPARSE))
    how = Zero(stage, expert=size, **zero)
    return ZeroEngine(model, zero=how, precision=precision, optim=OPTIM, use_gpu=False)


def train_experts(plans: list[tuple[int, int]]) -> list[Outcome]:
    """Train under each (workers of a group, ZeRO stage)."""
    return [tiny.train_spread(make_engine(*plan)) for plan in plans]


def resume_experts(plans: list[tuple[int, int]], folder: str) -> list[tuple[list[float], list[float]]]:
    """Train three steps, save after the first, and train the last two again in a new engine: losses of both."""

    def train(engine: Any, steps: range) -> list[float]:
        rank, workers = engine.shard.rank, engine.shard.size
        return [engine.step(share(make_batches(s), rank, workers), criterion, rate=1.0).loss for s in steps]

    results = []
    for number, plan in enumerate(plans):
        engine = make_engine(*plan, "bf16")
        train(engine, range(1))
        engine.save(f"{folder}/{number}", {"step": 1})
        straight = train(engine, range(1, 3))
        again = make_engine(*plan, "bf16")
        assert again.load(f"{folder}/{number}") == {"step": 1}
        results.append((straight, train(again, range(1, 3))))
    return results


def lopsided_batches(step: int, **_: int) -> list[Batch]:
    """Make batches of which the even ones repeat one token, so that all their rows choose the same experts."""
    batches = make_batches(step)
    for number, batch in enumerate(batches):
        if number % 2 == 0:
            batch.input_ids.fill_(7 + step)
            batch.segment_ids.zero_()
            assert 7 + step < VOCAB
    return batches


def train_lopsided() -> tuple[Outcome, list[list[int]]]:
    """Train under ZeRO-3, each module gathered alone; also give the loads of the last layer, by step."""
    tiny.make_batches = lopsided_batches
    engine = make_engine(1, 3, leaf_numbers=0, persist_numbers=0)
    loads: list[list[int]] = []
    router = router_of(engine.module)
    step = engine.step

    def watched(*arguments: Any, **options: Any) -> Any:
        done = step(*arguments, **options)
        loads.append(router.loads[2].counts.tolist())
        router.reset()
        return done

    engine.step = watched
    return tiny.train_spread(engine), loads


def balance(rows: list[Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Give the mean over workers of the gate's gradient, each with its own rows, under the global-batch loss."""
    import torch.distributed as dist

    block, losses = balanced_block()
    losses.group = dist.group.WORLD
    block(rows[dist.get_rank()]).sum().backward()
    gradient = block.gate.weight.grad
    dist.all_reduce(gradient)
    return gradient / dist.get_world_size(), losses.metrics()


def balanced_block() -> tuple[SparseMoeBlock, Any]:
    """Build a sparse layer whose balancing loss takes its counts from the global batch."""
    torch.manual_seed(3)
    block = SparseMoeBlock(tiny_config(**SPARSE | {"router_aux_loss_coef": 1.0, "router_z_loss_coef": 0.1}))
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    return block, router_of(block, "global_batch")
