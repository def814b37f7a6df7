"""When things happen in a run: the learning rate, and the validation points that make a curve."""

from __future__ import annotations

import math


def learning_rate_at(step: int, peak: float, warmup_steps: int, max_steps: int, min_ratio: float) -> float:
    """Linear warm-up, then cosine decay (Loshchilov & Hutter, 2017).

    Args:
        step: From 0; the rate that this step uses.
        peak: Highest rate, reached at the end of the warm-up.
        warmup_steps: Length of the warm-up.
        max_steps: Length of the run.
        min_ratio: Share of `peak` that the last steps use.

    Returns:
        The rate; never 0, so that the first step counts.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    share = (step - warmup_steps) / max(1, max_steps - 1 - warmup_steps)
    return peak * (min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


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
