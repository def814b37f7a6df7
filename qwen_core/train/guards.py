"""Guards against a run that goes astray: each step's loss and gradient norm are judged by those before it.

A good step is applied. A bad one (loss NaN or infinite, loss spike, ...) is dropped, which costs one batch. After
`max_bad_steps` bad ones in a row training goes back to a checkpoint from before the trouble and passes over the data
that led into it, as PaLM was trained (Chowdhery et al., 2022, arXiv 2204.02311, section 5.1: a checkpoint about 100
steps older, 200 to 500 batches passed over). After `max_rollbacks` of those it gives up with a `DivergedError`.

A spike is a loss more than `spike_score` standard deviations above where the curve is now. OLMo 2's trainer does this
with mean and standard deviation, 6 of them over 128 steps. Here where the curve is now is the median of the newest good
steps, and the standard deviation comes from the median absolute deviation of the differences between neighbours among
the last `window_steps`: a spike that was let through moves neither, and the steep slope of a run's beginning does not
hide a spike. Losses are judged in logarithms, as long as they are positive: those of pretraining scatter so little that
it makes no difference, those of small fine-tuning batches scatter by factors, and in plain numbers their long tail
looks like spikes. A further bound relative to the median keeps a flat curve quiet. Gradient norms are judged in the
same way. A loss that creeps up over many steps is no spike: the median creeps along.

Everything is a function of the losses and norms, which are the same on every worker, and of `state()`, which travels
with the checkpoints: all workers decide alike, and a resumed run decides like one that never stopped.

Data after a rollback: the step's number goes on from the checkpoint (so do learning rate, validation and logging),
but step s reads the data of step `data_step(s)`: s plus all shifts that rollbacks added at or before s.

For the loop:

    guards = Guards(settings.guards)                       # or Guards(settings.guards, state["guards"]) at a resume
    indices = step_indices(seed, guards.data_step(step), ...)
    result = engine.step(batches, criterion, rate=rate, accept=guards.accept)
    decision = guards.settle(step, result, lambda: task.describe(indices))
    events.emit_all(decision.events)
    if decision.error is not None:                         # `diverged`: every worker raises alike
        raise decision.error
    if decision.must_roll_back:
        step = guards.rollback_target(steps_of_checkpoints)    # raises DivergedError where there is none
        state = engine.load(folder of that step)
        events.emit(guards.rolled_back(state["guards"], step)); metric_log.rewind(guards.rollbacks, step); continue
    if checkpoint is due and guards.is_healthy:            # never save in the middle of trouble
        state["guards"] = guards.state()
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen_core.config.guards import Guards as GuardSettings
from qwen_core.errors import DivergedError
from qwen_core.train.events import Event

if TYPE_CHECKING:
    from qwen_core.parallel.engine import Step

_MAD_TO_SIGMA = 1.4826  # of a normal distribution
_MOST_DOCUMENTS = 256  # named in one event
_NEWEST = 16  # steps that tell where a curve is now
_LEAST_HISTORY = 8  # a median of fewer says nothing


@dataclass(frozen=True)
class Decision:
    """What the loop does after a step.

    Attributes:
        is_good: Whether the step counts as a good one.
        must_roll_back: Go back to a checkpoint, see `rollback_target`.
        events: To be told.
        error: To be raised, after the events were told.
    """

    is_good: bool = True
    must_roll_back: bool = False
    events: tuple[Event, ...] = ()
    error: DivergedError | None = None


class Guards:
    """Judges the steps of one run; see the module."""

    def __init__(self, settings: GuardSettings, state: Mapping[str, Any] | None = None) -> None:
        """Start at step 0, or go on.

        Args:
            settings: Thresholds.
            state: As `state()` gave it.
        """
        self._settings = settings
        self._next_step = 0
        self._losses: list[float] = []
        self._log_norms: list[float] = []
        self._bad_steps: list[int] = []
        self._rollbacks: list[dict[str, int]] = []
        self._shifts: list[list[int]] = []
        if state is not None:
            self._restore_history(state)
            self._rollbacks = [dict(one) for one in state["rollbacks"]]
            self._shifts = [list(one) for one in state["shifts"]]

    def state(self) -> dict[str, Any]:
        """Give everything that later decisions depend on, as plain JSON; the same on every worker."""
        return {
            "next_step": self._next_step,
            "losses": list(self._losses),
            "log_norms": list(self._log_norms),
            "bad_steps": list(self._bad_steps),
            "rollbacks": [dict(one) for one in self._rollbacks],
            "shifts": [list(one) for one in self._shifts],
        }

    @property
    def is_healthy(self) -> bool:
        """Whether the last step was good: only then is a checkpoint worth going back to."""
        return not self._bad_steps

    @property
    def rollbacks(self) -> int:
        """How often training went back so far; numbers the branches of the run's curves."""
        return len(self._rollbacks)

    def data_step(self, step: int) -> int:
        """Say which step's data a step reads.

        Args:
            step: Optimiser step, from 0.

        Returns:
            The step whose data it reads: `step` itself, and more after rollbacks.
        """
        return step + sum(shift for start, shift in self._shifts if start <= step)

    def accept(self, loss: float) -> bool:
        """Say whether the weights may change; for `Engine.step`, changes nothing here.

        An outlier of the gradient's norm is no reason: clipping bounds what it does.

        Args:
            loss: Of the whole batch.

        Returns:
            Whether to apply the step.
        """
        if not math.isfinite(loss):
            return False
        return not (self._settings.spike_action == "skip" and self._is_spike(loss))

    def settle(self, step: int, result: Step, describe: Callable[[], Sequence[str]]) -> Decision:
        """Take down what a step did and say what comes next; to be called once for each step, on every worker.

        Args:
            step: Optimiser step, from 0.
            result: What the engine returned.
            describe: Names the documents of the batch; called for a bad step only.

        Returns:
            What to do.
        """
        found = self._faults(result)
        self._next_step = step + 1
        if not found:
            self._learn(result)
            self._bad_steps.clear()
            return Decision()
        events = [self._event(kind, text, step, result, describe) for kind, text in found]
        if result.is_applied and math.isfinite(result.loss) and not math.isinf(result.grad_norm):
            # An outlier whose effect clipping has bounded, or a spike that the recipe trains on: only told.
            self._learn(result)
            self._bad_steps.clear()
            return Decision(is_good=False, events=tuple(events))
        self._bad_steps.append(step)
        if len(self._bad_steps) < self._settings.max_bad_steps:
            return Decision(is_good=False, events=tuple(events))
        recent = [one for one in self._rollbacks if step - one["at"] < self._settings.rollback_memory_steps]
        if len(recent) < self._settings.max_rollbacks:
            return Decision(is_good=False, must_roll_back=True, events=tuple(events))
        error = DivergedError(self._farewell(step, len(recent), result))
        return Decision(is_good=False, events=(*events, Event("diverged", step, str(error), "error")), error=error)

    def rollback_target(self, saved_steps: Sequence[int]) -> int:
        """Choose the checkpoint to go back to: the newest from well before the trouble, else the oldest.

        Where going back to a checkpoint did not help, the next one tried is older, if there is one: the weights in it
        may have been bad already.

        Args:
            saved_steps: Steps that complete checkpoints were taken before.

        Returns:
            One of them.

        Raises:
            DivergedError: There is none from before the trouble.
        """
        onset = self._bad_steps[0]
        before = sorted(step for step in saved_steps if step <= onset)
        if not before:
            raise DivergedError(
                f"{len(self._bad_steps)} bad steps in a row from step {onset} on, and no checkpoint from before them "
                f"to go back to (checkpoints: {sorted(saved_steps)}); lower checkpoint_every_steps, and see "
                f"{self._advice()}"
            )
        last = self._rollbacks[-1] if self._rollbacks else None
        if last is not None and onset - last["at"] < self._settings.rollback_distance_steps:
            before = [step for step in before if step < last["to"]] or before[:1]
        far = [step for step in before if step <= onset - self._settings.rollback_distance_steps]
        return far[-1] if far else before[0]

    def rolled_back(self, state: Mapping[str, Any], step: int) -> Event:
        """Take up the checkpoint's history and pass over the data that led into the trouble.

        Args:
            state: The guards' state in the checkpoint.
            step: That the checkpoint was taken before.

        Returns:
            The event to tell.
        """
        first_bad, last_bad = self._bad_steps[0], self._bad_steps[-1]
        behind = self.data_step(last_bad) + 1
        self._shifts = [one for one in self._shifts if one[0] < step]
        goes_on = max(behind, self.data_step(step) + self._settings.rollback_skip_steps)
        passed = goes_on - self.data_step(step)
        self._shifts.append([step, passed])
        self._rollbacks.append({"at": last_bad, "to": step, "passed": passed})
        self._restore_history(state)
        return Event(
            "rollback",
            last_bad,
            f"bad steps {first_bad} to {last_bad}: back to the checkpoint of step {step}, passing over {passed} steps' "
            f"data; rollback number {self.rollbacks}",
            "error",
            {"to_step": step, "from_step": last_bad, "passed_over_steps": passed, "data_goes_on_at_step": goes_on},
        )

    def _restore_history(self, state: Mapping[str, Any]) -> None:
        self._next_step = int(state["next_step"])
        self._losses, self._log_norms = list(state["losses"]), list(state["log_norms"])
        self._bad_steps = list(state["bad_steps"])

    def _learn(self, result: Step) -> None:
        """Keep a good step's figures for later medians."""
        self._losses = [*self._losses, result.loss][-self._settings.window_steps :]
        if math.isfinite(result.grad_norm) and result.grad_norm > 0 and result.is_applied:
            self._log_norms = [*self._log_norms, math.log(result.grad_norm)][-self._settings.window_steps :]

    def _faults(self, result: Step) -> list[tuple[str, str]]:
        """List what is bad about a step: kind and text."""
        found = []
        if not math.isfinite(result.loss):
            found.append(("loss_not_finite", f"the loss is {result.loss}"))
        elif self._is_spike(result.loss):
            usual = statistics.median(self._losses[-_NEWEST:])
            found.append(("loss_spike", f"the loss is {result.loss:.4g}, before it about {usual:.4g}"))
        if self._is_overflow(result):
            if result.loss_scale == 1.0:  # not scaled: no overflow of fp16
                found.append(("grad_norm_outlier", "the gradients are not finite, though the loss is"))
            elif not found and result.loss_scale <= self._settings.min_loss_scale:
                found.append(("loss_scale_collapsed", f"gradients overflow at a loss scale of {result.loss_scale:g}"))
        elif self._is_outlier(result.grad_norm):
            usual = math.exp(statistics.median(self._log_norms[-_NEWEST:])) if self._log_norms else math.nan
            text = f"the gradient norm is {result.grad_norm:.4g}, before it about {usual:.4g}"
            found.append(("grad_norm_outlier", text))
        return found

    def _is_overflow(self, result: Step) -> bool:
        """Tell fp16's overflow, which its loss scale deals with, from a batch that was refused here."""
        return not result.is_applied and self.accept(result.loss)

    def _is_spike(self, loss: float) -> bool:
        if self._next_step < self._settings.grace_steps or len(self._losses) < _LEAST_HISTORY:
            return False
        if loss > 0 and min(self._losses) > 0:
            centre, sigma = _centre_and_sigma([math.log(value) for value in self._losses])
            rise, least = math.log(loss) - centre, math.log1p(self._settings.spike_rise_ratio)
        else:
            centre, sigma = _centre_and_sigma(self._losses)
            rise, least = loss - centre, self._settings.spike_rise_ratio * abs(centre)
        return rise > self._settings.spike_score * sigma and rise > least

    def _is_outlier(self, grad_norm: float) -> bool:
        if math.isinf(grad_norm):
            return True
        if math.isnan(grad_norm) or grad_norm <= 0:
            return False
        if self._next_step < self._settings.grace_steps or len(self._log_norms) < _LEAST_HISTORY:
            return False
        centre, sigma = _centre_and_sigma(self._log_norms)
        rise = math.log(grad_norm) - centre
        return rise > self._settings.grad_norm_score * sigma and rise > math.log(self._settings.grad_norm_ratio)

    def _event(self, kind: str, text: str, step: int, result: Step, describe: Callable[[], Sequence[str]]) -> Event:
        documents = list(describe())
        done = "applied" if result.is_applied else "dropped"
        details = {
            "loss": result.loss,
            "grad_norm": result.grad_norm,
            "loss_scale": result.loss_scale,
            "is_applied": result.is_applied,
            "data_step": self.data_step(step),
            "documents": documents[:_MOST_DOCUMENTS],
            "num_documents": len(documents),
        }
        named = ", ".join(documents[:3]) + (f" and {len(documents) - 3} more" if len(documents) > 3 else "")
        return Event(kind, step, f"{text}; batch {done}: {named}", "warning", details)

    def _farewell(self, step: int, recent: int, result: Step) -> str:
        return (
            f"training went astray: {len(self._bad_steps)} bad steps in a row up to step {step} "
            f"(loss {result.loss:.4g}, gradient norm {result.grad_norm:.4g}) after {recent} rollbacks within "
            f"{self._settings.rollback_memory_steps} steps (guards.max_rollbacks={self._settings.max_rollbacks}). "
            f"See {self._advice()}"
        )

    @staticmethod
    def _advice() -> str:
        return (
            "the documents named in the events (tables/events.json of the MLflow run). Then lower learning_rate, "
            "lengthen warmup_steps, use bf16 instead of fp16, clean the data, or, where the data are meant to be so "
            "different, raise guards.spike_score"
        )


def _centre_and_sigma(values: Sequence[float]) -> tuple[float, float]:
    """Estimate where a curve is now and how it scatters, whatever its slope.

    Args:
        values: The last good steps', in order.

    Returns:
        The median of the newest ones; the robust standard deviation from the differences of neighbours, whose
        scatter is sqrt(2) times that of the values.
    """
    centre = statistics.median(values[-_NEWEST:])
    differences = [later - earlier for earlier, later in itertools.pairwise(values)]
    middle = statistics.median(differences)
    spread = statistics.median(abs(difference - middle) for difference in differences)
    return centre, _MAD_TO_SIGMA * spread / math.sqrt(2)
