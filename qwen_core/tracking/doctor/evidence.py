"""What is known of one run, laid out for the causes: who plays which role, aligned curves, resumes, settings.

Each property is worked out once, when a cause first asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qwen_core.tracking.doctor.names import is_held_out, role_of, roles_of, tool_of
from qwen_core.tracking.doctor.record import Curve, Floats, Run
from qwen_core.tracking.doctor.signs import course_of, ends_of, noise_of

_EMPTY = Curve("", np.zeros(0), np.zeros(0), np.zeros(0))
_PAUSE_INTERVALS, _PAUSE_SECONDS = 20.0, 60.0


@dataclass(frozen=True)
class Resume:
    """A place where training seems to have gone on from a checkpoint.

    Attributes:
        step: First step after it.
        how: `rewind` (steps were logged again), `pause` (no point for long), or `run` (another run begins).
    """

    step: float
    how: str


@dataclass(frozen=True)
class Part:
    """One of several runs that continue one another."""

    run: Run
    curve: Curve


class Evidence:
    """A run, as the causes see it."""

    def __init__(self, run: Run, chosen: Mapping[str, str] | None = None) -> None:
        """Recognise the metrics.

        Args:
            run: The run.
            chosen: Role to the name of its metric, where the user said it.
        """
        self.run = run
        self.roles = roles_of(run.curves, chosen or {})
        self.tool = tool_of(run, [*run.curves, *run.others])

    def curve(self, role: str) -> Curve:
        """Give the curve that plays a role, as logged.

        Args:
            role: One of `names.ROLES`.

        Returns:
            The curve; without points where there is none.
        """
        return self.run.curves.get(self.roles.get(role, ""), _EMPTY)

    @cached_property
    def train(self) -> Curve:
        """The training loss as logged."""
        return self.curve("train_loss")

    @cached_property
    def validation(self) -> Curve:
        """The validation loss as logged."""
        return self.curve("validation_loss")

    @cached_property
    def trained(self) -> Curve:
        """The training loss by rising step, finite points alone."""
        return self.train.by_step()

    @cached_property
    def validated(self) -> Curve:
        """The validation loss by rising step, finite points alone."""
        return self.validation.by_step()

    @cached_property
    def rate(self) -> Curve:
        """The learning rate by rising step."""
        return self.curve("learning_rate").by_step()

    @cached_property
    def norm(self) -> Curve:
        """The gradient's norm by rising step, finite points alone."""
        return self.curve("grad_norm").by_step()

    @cached_property
    def course(self) -> Floats:
        """The smooth course of `trained`."""
        return course_of(self.trained.values)

    @cached_property
    def noise(self) -> float:
        """Noise of `trained` around its course."""
        return noise_of(self.trained.values)

    @cached_property
    def levels(self) -> tuple[float, float]:
        """Level of `trained` at both ends."""
        return ends_of(self.trained.values) if len(self.trained) else (np.nan, np.nan)

    @cached_property
    def last_step(self) -> float:
        """The last step of the training loss; NaN without one."""
        return float(np.max(self.train.steps)) if len(self.train) else float("nan")

    @cached_property
    def interval(self) -> float:
        """Usual number of steps between two points of the training loss; 0 with fewer than two."""
        return self.trained.interval

    @cached_property
    def held_out(self) -> list[str]:
        """Names of metrics that were measured on held-out data and are not the loss."""
        return [n for n in (*self.run.curves, *self.run.others) if is_held_out(n) and role_of(n) != "validation_loss"]

    @cached_property
    def together(self) -> tuple[Floats, Floats, Floats]:
        """Steps of the validation loss within the training's range, the course of training there, the validation."""
        train, held = self.trained, self.validated
        if len(train) < 2 or not len(held):
            return np.zeros(0), np.zeros(0), np.zeros(0)
        half = self.interval / 2
        inside = (held.steps >= train.steps[0] - half) & (held.steps <= train.steps[-1] + half)
        steps = held.steps[inside]
        return steps, np.interp(steps, train.steps, self.course), held.values[inside]

    @cached_property
    def is_axis_shared(self) -> bool:
        """Tell whether training and validation seem to count in the same unit."""
        if len(self.validated) < 2 or len(self.trained) < 2:
            return False
        ratio = self.validated.steps[-1] / max(1e-9, self.trained.steps[-1])
        return bool(0.25 < ratio < 4)

    @cached_property
    def is_validated_late(self) -> bool:
        """Tell whether the first validation was measured in the second half of the run, whatever its step says."""
        start, end = self.train.seconds[0], self.train.seconds[-1]
        return bool(end > start and self.validation.seconds[0] - start > 0.5 * (end - start))

    @cached_property
    def is_preference(self) -> bool:
        """Tell whether the run learns preferences, where training may add a term that validation has not."""
        names = [*self.run.curves, *self.run.others]
        return self.run.stage in ("dpo", "reward", "ppo") or any("preference" in n or "rewards/" in n for n in names)

    def setting(self, *names: str) -> tuple[str, float] | None:
        """Look a number up among the settings.

        Args:
            *names: Of the setting, most telling first; of a dotted name the last word counts, those of the stage first.

        Returns:
            Name as logged, and value; None where it is not set or is no number.
        """
        for name in names:
            for logged in sorted(self.run.params, key=lambda one: not one.startswith(f"{self.run.stage}.")):
                if logged == name or logged.rsplit(".", 1)[-1] == name:
                    try:
                        return logged, float(self.run.params[logged])
                    except ValueError:
                        continue
        return None

    @cached_property
    def batch_size(self) -> tuple[str, float] | None:
        """The size of a batch, as `setting` gives it."""
        return self.setting("global_batch_size", "train_batch_size", "per_device_train_batch_size", "batch_size")

    @cached_property
    def chance(self) -> float:
        """Loss of guessing evenly among all words; NaN where their number is not set."""
        words = self.setting("vocab_size")
        return float(np.log(words[1])) if words and words[1] > 1 else np.nan

    def word(self, *names: str) -> tuple[str, str] | None:
        """Look a word up among the settings.

        Args:
            *names: Of the setting, most telling first; of a dotted name the last word counts.

        Returns:
            Name as logged and value, without the enum's name before it; None where it is not set.
        """
        known = {logged.rsplit(".", 1)[-1]: (logged, value) for logged, value in self.run.params.items()}
        found = next((known[name] for name in names if name in known), None)
        return found and (found[0], found[1].rsplit(".", 1)[-1].lower())

    def events(self, kind: str) -> list[float]:
        """List the steps at which the guards of training saw something.

        Args:
            kind: Such as `loss_spike`.

        Returns:
            Steps, rising.
        """
        curve = self.run.curves.get(f"events/{kind}", _EMPTY)
        return sorted({float(step) for step in curve.steps[curve.values > 0]})

    @cached_property
    def rewinds(self) -> list[tuple[int, float]]:
        """Places in the training loss as logged where the step falls, and how far it falls."""
        falls = np.diff(self.train.steps)
        return [(int(place) + 1, float(-falls[place])) for place in np.flatnonzero(falls < 0)]

    @cached_property
    def resumes(self) -> list[Resume]:
        """Places where training seems to have gone on from a checkpoint, by step."""
        found = {float(self.train.steps[place]): "rewind" for place, _ in self.rewinds}
        seconds = np.diff(self.trained.seconds)
        if len(seconds) > 4 and np.isfinite(seconds).all():
            usual = float(np.median(seconds))
            is_close = np.diff(self.trained.steps) <= 3 * self.interval  # else points are missing, and it is a gap
            places = np.flatnonzero(is_close & (seconds > max(_PAUSE_INTERVALS * usual, _PAUSE_SECONDS)))
            for place in places[:20]:
                found.setdefault(float(self.trained.steps[place + 1]), "pause")
        return [Resume(step, how) for step, how in sorted(found.items())]

    @cached_property
    def parts(self) -> list[Part]:
        """This run among those that it continues and that continue it, in order; alone where there are none."""
        role = "train_loss" if len(self.train) else "validation_loss"
        name = self.roles.get(role, "")
        mine = Part(self.run, self.curve(role))
        if not len(mine.curve):
            return [mine]
        others = [Part(one, one.curves[name]) for one in self.run.siblings if len(one.curves.get(name, _EMPTY))]
        chain = [mine]
        while (before := [one for one in others if _continues(one, chain[0])]) and len(chain) < 50:
            chain.insert(0, max(before, key=lambda one: one.curve.seconds[-1]))
            others.remove(chain[0])
        while (after := [one for one in others if _continues(chain[-1], one)]) and len(chain) < 50:
            chain.append(min(after, key=lambda one: one.curve.seconds[0]))
            others.remove(chain[-1])
        return chain


def _continues(first: Part, second: Part) -> bool:
    """Tell whether a run begins where another ended: in time, and in steps or in loss."""
    a, b = first.curve, second.curve
    if not (a.seconds[-1] <= b.seconds[0]):
        return False
    interval = a.interval if len(a) > 1 else max(1.0, a.steps[0])
    begins_later = b.steps[0] > a.steps[0] + max(interval, 1.0)
    if begins_later:
        return bool(b.steps[0] <= a.steps[-1] + 3 * interval and b.steps[-1] > a.steps[-1])
    if min(len(a), len(b)) < 8 or b.steps[0] > a.steps[0] + interval:
        return False
    (start, end), (level, _) = ends_of(a.by_step().values), ends_of(b.by_step().values)  # steps begin anew
    return bool(start - end > 0.1 * abs(start) and abs(level - end) < 0.15 * (start - end))
