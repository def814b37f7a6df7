"""The loop that all training stages share, as it runs in each worker, whichever way the model is spread.

    [resume] ─▶ for each step: validate where due ─▶ batches (read ahead) ─▶ engine.step ─▶ guards ─▶ log
                       ▲                                                                     │ └─▶ checkpoint where due
                       └──────────────────── back to a checkpoint ◀── too many bad steps ────┘

Everything that decides a step (data, learning rate, batch size, random numbers, validation points) is a function of
the step's number and of the guards' state, which travels with checkpoints: a resumed run goes on exactly as if it had
never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from qwen_core.config.training import Optimiser
from qwen_core.data.packed import indices_from
from qwen_core.parallel.engine import Batch, Engine, Step
from qwen_core.train.guards import Guards
from qwen_core.train.meter import Meter
from qwen_core.train.prefetch import prefetched
from qwen_core.train.schedule import Batches, Schedule, validation_steps
from qwen_core.train.signals import Signals
from qwen_core.train.task import Task

Log = Callable[[dict[str, float], int], None]
_PRIME = 1_000_003
"""Keeps apart the random states of seeds, steps and shares."""


class Keeper(Protocol):
    """Who keeps checkpoints; every worker calls alike."""

    def due(self, step: int, validation_loss: float | None = None) -> bool:
        """Decide whether a checkpoint is taken before a step."""
        ...

    def save(self, engine: Engine, step: int, state: Mapping[str, Any], validation_loss: float | None = None) -> None:
        """Take one; may go on writing while training does."""
        ...

    def steps(self) -> Sequence[int]:
        """List the steps of complete checkpoints."""
        ...

    def go_back(self, engine: Engine, step: int) -> dict[str, Any]:
        """Restore a step's checkpoint and forget those after it; return the loop's state in it."""
        ...


@dataclass
class Loop:
    """One worker's side of a training run.

    Attributes:
        engine: The spread model.
        task: The stage's data, objective and measures.
        settings: The stage's recipe section.
        seed: The recipe's.
        meter: Measures speed; knows the tokens that went through the model.
        signals: Takes events and where a profile is wanted.
        keeper: Keeps checkpoints.
        log: Called on every worker with figures and their step.
        history: What was logged, one mapping with `step` for each event, in order; travels with checkpoints.
    """

    engine: Engine
    task: Task
    settings: Optimiser
    seed: int
    meter: Meter
    signals: Signals
    keeper: Keeper
    log: Log
    history: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = self.settings
        self.guards = Guards(settings.guards)
        self._schedule = schedule_of(settings)
        self._sizes = batches_of(settings)
        self._due = set(validation_steps(settings.max_steps, settings.min_validation_points))

    def state(self, step: int) -> dict[str, Any]:
        """Give what a checkpoint before a step must hold beside the engine's own; plain JSON.

        Args:
            step: That comes next.

        Returns:
            The state.
        """
        return {"step": step, "history": self.history, "tokens": self.meter.tokens, "guards": self.guards.state()}

    def restore(self, state: Mapping[str, Any]) -> int:
        """Take up the state of a checkpoint; the engine has been restored.

        Args:
            state: As `state` gave it.

        Returns:
            The step that comes next.
        """
        self.guards = Guards(self.settings.guards, state["guards"])
        return self._take_up(state)

    def run(self, first_step: int = 0) -> None:
        """Train from a step to the end, and measure there.

        Args:
            first_step: 0, or the step that a checkpoint was taken before.

        Raises:
            DivergedError: Too many bad steps, and going back did not help.
        """
        step = first_step
        while step < self.settings.max_steps:
            step = self._stretch(step)
        self._between(step, may_save=self.settings.use_best_checkpoint)

    def _stretch(self, first: int) -> int:
        """Train until the end, or until a rollback; return the step that comes next."""
        self.meter.figures()  # what came before is not training speed
        with prefetched(self._batches, first, self.settings.max_steps) as next_batches:
            for step in range(first, self.settings.max_steps):
                self._between(step, may_save=step > first)
                with self.meter.part("data"):
                    batches = next_batches()
                result = self._step(step, batches)
                decision = self.guards.settle(step, result, lambda step=step: self._describe(step))  # type: ignore[misc]
                self.signals.events.emit_all(decision.events)
                if decision.error is not None:
                    raise decision.error
                if decision.must_roll_back:
                    return self._roll_back()
                self._tell_step(step, result)
        return self.settings.max_steps

    def _between(self, step: int, may_save: bool) -> None:
        """Measure and save before a step, where it is due."""
        loss = self._validate(step) if step in self._due else None
        if may_save and self.guards.is_healthy and self.keeper.due(step, loss):
            with self.meter.pause("checkpoint"):
                self.keeper.save(self.engine, step, self.state(step), loss)

    def _step(self, step: int, batches: Sequence[Batch]) -> Step:
        """Take one optimiser step."""
        # Dropout and the like draw from a state that depends on step and share alone
        torch.manual_seed((self.seed * _PRIME + step) * _PRIME + self.engine.shard.rank & (2**63 - 1))
        rate = self._schedule.at(step)
        with self.signals.around(step):
            result = self.engine.step(batches, self.task.objective, rate=rate, accept=self.guards.accept)
        size, data_step = self._sizes.size_at(step), self.guards.data_step(step)
        self.meter.step(batches, result, sequences=size, data_step=data_step, step=step)
        return result

    def _tell_step(self, step: int, result: Step) -> None:
        """Log a step where it is due, and every step that changed nothing."""
        settings, done = self.settings, step + 1
        if done % settings.log_every_steps and done not in (1, settings.max_steps) and result.is_applied:
            return
        figures = {
            "train/loss": result.loss,
            "train/learning_rate": self._schedule.at(step) * settings.learning_rate,
            "train/grad_norm": result.grad_norm,
            **{f"train/{name}": value for name, value in result.figures.items()},
        }
        if settings.precision == "fp16":
            figures["train/loss_scale"] = result.loss_scale
        if settings.batch_ramp_steps:
            figures["train/batch_size"] = float(self._sizes.size_at(step))
        # NaN is no point of a curve: the event tells of it
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        self._tell(finite | self.meter.figures() | self.engine.report(), done)

    def _roll_back(self) -> int:
        """Return to a checkpoint from before the trouble; return the step that comes next."""
        step = self.guards.rollback_target(self.keeper.steps())
        with self.meter.pause("rollback"):
            state = self.keeper.go_back(self.engine, step)
        self.signals.events.emit(self.guards.rolled_back(state["guards"], step))
        return self._take_up(state)

    def _take_up(self, state: Mapping[str, Any]) -> int:
        """Go on from a checkpoint's curves; return the step that comes next."""
        step = int(state["step"])
        self.history, self.meter.tokens = list(state["history"]), int(state["tokens"])
        self.signals.rewind(self.guards.rollbacks, step)
        return step

    def _indices(self, step: int) -> list[int]:
        """Say which examples make up a step, over all workers."""
        first, size = self._sizes.first_at(self.guards.data_step(step)), self._sizes.size_at(step)
        return indices_from(self.seed, first, size, len(self.task)).tolist()  # type: ignore[no-any-return]

    def _batches(self, step: int) -> list[Batch]:
        """Make this worker's micro-batches of a step."""
        shard, size = self.engine.shard, self.settings.micro_batch_size
        indices = self._indices(step)
        # Micro-batches are dealt out in turn, so that each pass over all workers takes the next ones of the order
        starts = range(shard.rank * size, len(indices), shard.size * size)
        return [self.task.batch(indices[start : start + size]) for start in starts]

    def _describe(self, step: int) -> list[str]:
        return self.task.describe(self._indices(step))

    def _validate(self, step: int) -> float:
        """Measure on the held-out set, unless a checkpoint before this step brought its figures along."""
        name = "validation/loss"
        for event in reversed(self.history):
            if event["step"] < step:
                break
            if event["step"] == step and name in event:
                return event[name]
        with self.meter.pause("validation"):
            figures = self.task.validate(self.engine)
        self._tell({f"validation/{key}": value for key, value in figures.items()}, step)
        return figures["loss"]

    def _tell(self, figures: dict[str, float], step: int) -> None:
        # how long things took and what memory they used differ from try to try; the curves do not
        lasting = {name: value for name, value in figures.items() if not name.startswith(("time/", "system/"))}
        self.history.append({"step": float(step), **lasting})
        self.log(figures, step)


def schedule_of(settings: Optimiser) -> Schedule:
    """Build the learning rate schedule of a recipe section."""
    return Schedule(
        settings.schedule,
        settings.max_steps,
        settings.warmup_steps,
        settings.min_learning_rate_ratio,
        settings.decay_ratio,
        settings.decay_shape,
    )


def batches_of(settings: Optimiser) -> Batches:
    """Build the batch sizes of a recipe section."""
    full = settings.global_batch_size
    return Batches(full, settings.batch_ramp_start or full, settings.batch_ramp_steps)


def summarise(history: Sequence[dict[str, float]], settings: Optimiser) -> dict[str, float]:
    """Take a run's closing figures from its history.

    Args:
        history: As the loop kept it.
        settings: The stage's section.

    Returns:
        `steps`, `first_...` and `last_...` of each curve that matters, `tokens_per_second` (median).
    """
    figures: dict[str, float] = {"steps": float(settings.max_steps)}
    curves: dict[str, list[float]] = {}
    for event in history:
        for name, value in event.items():
            curves.setdefault(name, []).append(value)
    for name in ("train/loss", "validation/loss", "validation/bits_per_byte", "validation/preference_accuracy"):
        if name in curves:
            title = name.replace("train/", "train_").replace("validation/", "validation_")
            figures[f"first_{title}"], figures[f"last_{title}"] = curves[name][0], curves[name][-1]
    speeds = sorted(curves.get("train/tokens_per_second", [0.0]))
    figures["tokens_per_second"] = speeds[len(speeds) // 2]
    return figures
