"""What the workers of the tests do: functions that `spread` can call by name."""

from __future__ import annotations

from typing import Any

from qwen_core.parallel.engine import Objective
from tests.parallel.tiny import (
    OPTIM,
    Outcome,
    criterion,
    make_batches,
    share,
    tiny_config,
    tiny_model,
    train_spread,
    uneven_steps,
)

Plan = tuple[dict[str, Any], dict[str, Any]]
"""Changes of the tiny model's figures, and arguments of the engine."""


def make_engine(changes: dict[str, Any], arguments: dict[str, Any]) -> Any:
    """Spread the tiny model over pipeline x tensor x data workers."""
    from qwen_core.parallel.pipe_engine import PipeEngine

    config = tiny_config(**changes)
    weights = {name: weight.detach() for name, weight in tiny_model(config).named_parameters()}
    defaults: dict[str, Any] = {"optim": OPTIM, "precision": "fp32", "micro_batch_size": 2, "balance": "micro_batch"}
    return PipeEngine(config, weights.__getitem__, **defaults | arguments)


def run_each(calls: list[tuple[str, tuple[Any, ...]]]) -> list[Any]:
    """Call several of this file's functions in turn: starting the processes takes longer than they do."""
    return [globals()[name](*arguments) for name, arguments in calls]


def run_plans(plans: list[Plan]) -> list[Outcome]:
    """Train each plan in turn."""
    return [train_spread(make_engine(*plan)) for plan in plans]


def run_uneven(plan: Plan) -> Outcome:
    """Train steps of other numbers and shapes of micro-batches, with a refused step between each two."""
    engine = make_engine(*plan)
    refused, before = share(make_batches(7), engine.shard.rank, engine.shard.size), []
    step = engine.step

    def step_after_a_refused_one(batches: Any, criterion: Any, *, rate: float) -> Any:
        done = step(refused, criterion, rate=1.0, accept=lambda loss: not before.append(loss) and False)
        assert not done.is_applied and done.loss == before[-1] and done.grad_norm != done.grad_norm
        return step(batches, criterion, rate=rate)

    engine.step = step_after_a_refused_one
    outcome = train_spread(engine, steps=uneven_steps())
    poisoned = step(refused, lambda losses, batch: Objective(losses.sum() * float("nan")), rate=1.0)
    assert not poisoned.is_applied
    outcome.measured = engine.measure(make_batches(9, rows=1, length=21)[0])
    return outcome


def run_resumed(plan: Plan, folder: str) -> list[Any]:
    """Train on after saving, and again from the saved state in an engine that began with other weights."""
    results = []
    engine = make_engine(*plan)
    train_spread(engine)
    engine.save(folder, {"step": 3})
    train_spread(engine)
    results.append(dict(engine.parameters()))
    other = make_engine(*plan)
    mine = share(make_batches(5), other.shard.rank, other.shard.size)
    other.step(mine, criterion, rate=1.0)
    assert other.load(folder) == {"step": 3}
    train_spread(other)
    results.append(dict(other.parameters()))
    return results


def run_precisions(plan: Plan, precisions: list[str]) -> dict[str, list[float]]:
    """Tell losses, norms and a measure after a step that was not a number, in each precision."""
    changes, arguments = plan
    results = {}
    for precision in precisions:
        engine = make_engine(changes, arguments | {"precision": precision})
        outcome = train_spread(engine)
        mine = share(make_batches(5), engine.shard.rank, engine.shard.size)
        poisoned = engine.step(mine, lambda losses, batch: Objective(losses.sum() * float("nan")), rate=1.0)
        assert not poisoned.is_applied, precision
        results[precision] = outcome.losses + outcome.norms + [float(engine.measure(make_batches(9)[0]).mean())]
    return results


def run_report(plan: Plan) -> dict[str, float]:
    """Tell the experts' loads after three steps."""
    engine = make_engine(*plan)
    train_spread(engine)
    figures: dict[str, float] = engine.report()
    return figures
