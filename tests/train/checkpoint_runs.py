"""What the workers of the checkpoint tests do: functions that `spread` can call by name."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tests.parallel.expert_runs import SPARSE
from tests.parallel.tiny import OPTIM, criterion, make_batches, share, tiny_config, tiny_model

IDENTITY = {"model": {"hidden_size": 32, "vocab_size": 64}, "data": "d1", "tokenizer": "t1"}


def make(plan: dict[str, Any]) -> Any:
    """Build the engine of a plan: `zero` is a stage, otherwise `pipeline` and `tensor`."""
    from deepspeed.utils import groups

    groups.mpu = None  # DeepSpeed remembers the pipeline that this process had before
    plan = dict(plan)
    precision, optimiser = plan.pop("precision", "fp32"), plan.pop("optimizer", "adamw")
    sparse = SPARSE if plan.pop("sparse", False) else {}
    config = tiny_config(tie_word_embeddings=plan.pop("tied", False), **sparse)
    model, optim = tiny_model(config), replace(OPTIM, name=optimiser)
    if "zero" in plan:
        from qwen_core.parallel.zero import Zero, ZeroEngine

        zero = Zero(stage=plan["zero"], expert=plan.get("expert", 1), persist_numbers=100)
        return ZeroEngine(model, zero=zero, precision=precision, optim=optim, use_gpu=False)
    from qwen_core.parallel.pipe_engine import PipeEngine

    weights = {name: weight.detach() for name, weight in model.state_dict().items()}
    return PipeEngine(config, weights.__getitem__, optim=optim, precision=precision, micro_batch_size=2, **plan)


def step(engine: Any, number: int) -> float:
    """Take one step; its rate, its loss and what is drawn at random depend on what came before."""
    mine = share(make_batches(number), engine.shard.rank, engine.shard.size)
    torch.rand(1), np.random.rand(), random.random()
    return float(engine.step(mine, criterion, rate=1.0 / (1 + number)).loss)


def run(
    plan: dict[str, Any], uri: str, first: int, last: int, save_at: tuple[int, ...], back_at: int = -1
) -> dict[str, Any]:
    """Restore where there is something to restore, train some steps, save where told, once go back to the last save."""
    from qwen_core.train.checkpoint import Checkpoints

    engine = make(plan)
    keeper = Checkpoints(uri, identity=IDENTITY, plan=plan, every_steps=10**9)
    state = keeper.restore(engine)
    begun = state["step"] if state else first
    losses = list(state["losses"]) if state else []
    done = begun
    while done < last:
        losses.append(step(engine, done))
        done += 1
        if done in save_at:
            keeper.save(engine, done, {"losses": losses}, validation_loss=losses[-1])
        if done == back_at:
            state, back_at = keeper.go_back(engine, max(keeper.steps())), -1
            done, losses = state["step"], list(state["losses"])
    keeper.finish()
    drawn = [float(torch.rand(1)), float(np.random.rand()), random.random()]
    return {"begun": begun, "losses": losses, "drawn": drawn, "weights": dict(engine.parameters())}


def run_plans(plans: list[tuple[int, dict[str, Any], str, int, int, tuple[int, ...]]]) -> list[dict[str, Any]]:
    """Run several in turn, each with a seed of its own for what is drawn beside the training."""
    outcomes = []
    for seed, *plan in plans:
        random.seed(seed + torch.distributed.get_rank())
        np.random.seed(seed + torch.distributed.get_rank())
        outcomes.append(run(*plan))
    return outcomes


def run_until_killed(plan: dict[str, Any], uri: str, last: int, every: int, victim: int, after: int) -> list[float]:
    """Train, saving often; one worker kills itself a random moment after it has done some steps of this start."""
    from qwen_core.train.checkpoint import Checkpoints

    engine = make(plan)
    keeper = Checkpoints(uri, identity=IDENTITY, plan=plan, every_steps=every)
    state = keeper.restore(engine) or {"step": 0, "losses": []}
    losses = state["losses"]
    for done in range(state["step"] + 1, last + 1):
        if torch.distributed.get_rank() == victim and done == state["step"] + after:
            threading.Thread(target=_die, daemon=True).start()
        losses.append(step(engine, done - 1))
        if keeper.due(done):
            keeper.save(engine, done, {"losses": losses})
    keeper.finish()
    return losses


def _die() -> None:
    time.sleep(random.random() * 0.2)
    os.kill(os.getpid(), signal.SIGKILL)
