"""When things happen in a run: learning rate, batch size, validation points; all functions of the step alone."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a run, as a share of its top: a linear rise, then one of four ways down.

     - `cosine`: Loshchilov & Hutter, 2017, arXiv 1608.03983.
     - `wsd`: warm-up, stable, decay: Hu et al., 2024 (MiniCPM), arXiv 2404.06395; it stays at the top, so that a run
       can be lengthened or branched from any checkpoint before the fall, which is short: `1 - sqrt(x)`, the best in
       Hägele et al., 2024, arXiv 2405.18392, or linear.
     - `linear`: to the floor over all of the run.
     - `constant`: the top to the end.

    Attributes:
        kind: One of these.
        max_steps: Length of the run.
        warmup_steps: Steps of the rise.
        min_ratio: Where it ends, as a share of the top, 0 to 1.
        decay_ratio: Share of the run in which `wsd` falls, 0 to 1.
        decay_shape: `sqrt` or `linear`.
    """

    kind: str
    max_steps: int
    warmup_steps: int
    min_ratio: float
    decay_ratio: float = 0.1
    decay_shape: str = "sqrt"

    def at(self, step: int) -> float:
        """Tell the rate of a step.

        Args:
            step: From 0.

        Returns:
            A share of the top, above 0 in the warm-up, so that the first step counts.
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return 1.0
        first = self.warmup_steps
        if self.kind == "wsd":  # the last step is the end of the fall
            first = max(first, self.max_steps - 1 - round(self.decay_ratio * self.max_steps))
        done = min(1.0, max(0, step - first) / max(1, self.max_steps - 1 - first))
        return self.min_ratio + (1 - self.min_ratio) * self._left(done)

    def _left(self, done: float) -> float:
        """Tell what is left of the way down, 1 to 0, where a share of it is done."""
        if self.kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        if self.kind == "wsd" and self.decay_shape == "sqrt":
            return 1 - math.sqrt(done)
        return 1 - done


@dataclass(frozen=True)
class Batches:
    """How many sequences each step takes, and which is its first: a ramp in equal stages, then one size.

    A small batch learns more from each sequence while the loss still falls fast (Brown et al., 2020, arXiv 2005.14165,
    raised theirs linearly). Sizes are multiples of `start`, whatever the number of workers, so that the data of a step
    does not depend on it.

    Attributes:
        size: After the ramp.
        start: Of the first step; a divisor of `size`.
        ramp_steps: Steps before the full size.
    """

    size: int
    start: int
    ramp_steps: int = 0

    def size_at(self, step: int) -> int:
        """Count the sequences of a step, from 0."""
        if step >= self.ramp_steps:
            return self.size
        return self.start * (1 + step * self._stages // self.ramp_steps)

    def first_at(self, step: int) -> int:
        """Count the sequences of all steps before one."""
        total = self.size * max(0, step - self.ramp_steps)
        for stage in range(self._stages if self.ramp_steps else 0):
            begin = -(-stage * self.ramp_steps // self._stages)
            end = -(-(stage + 1) * self.ramp_steps // self._stages)
            total += self.start * (stage + 1) * max(0, min(step, end) - begin)
        return total

    @property
    def _stages(self) -> int:
        return self.size // self.start


def validation_steps(max_steps: int, min_points: int) -> list[int]:
    """Choose the steps before which the held-out loss is measured, so that it is always a curve.

    A function of the run's length alone: however often a run resumes, the points stay.

    Args:
        max_steps: Optimiser steps of the run.
        min_points: Points at least, the first (step 0) and the last (after the last step) included; fewer only
            where the run is shorter.

    Returns:
        Steps in rising order, from 0 to `max_steps`.
    """
    points = min(min_points, max_steps + 1)
    return sorted({round(index * max_steps / (points - 1)) for index in range(points)}) if points > 1 else [0]
