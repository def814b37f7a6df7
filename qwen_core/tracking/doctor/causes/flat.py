"""Causes of a curve that does not move: the learning rate, the gradient, what is trained at all."""

from __future__ import annotations

import numpy as np

from qwen_core.tracking.doctor.evidence import Evidence
from qwen_core.tracking.doctor.finding import Finding, fault, note, warning
from qwen_core.tracking.doctor.signs import ends_of, slope_of

_ZERO = 1e-12
_TINY_RATE = 1e-6
_CLIP = ("grad_clip", "max_grad_norm", "gradient_clip_val", "clip_grad", "gradient_clipping", "clip_grad_norm")


def learning_rate_zero(e: Evidence) -> Finding | None:
    """The learning rate is 0 for all, or nearly all, of the run."""
    rate = e.rate
    if len(rate) < 3:
        return None
    is_zero = np.abs(rate.values) < _ZERO
    if np.mean(is_zero) < 0.9:
        return None
    return fault(
        0.97,
        name=rate.name,
        points=len(rate),
        zeros=int(is_zero.sum()),
        start=e.levels[0],
        end=e.levels[1],
    )


def schedule_ended_early(e: Evidence) -> Finding | None:
    """The learning rate reaches 0 long before the run ends."""
    rate = e.rate
    if len(rate) < 6 or rate.values.max() <= 0:
        return None
    is_alive = np.flatnonzero(np.abs(rate.values) > max(_ZERO, 1e-4 * rate.values.max()))
    last = int(is_alive[-1])
    if last + 1 >= len(rate):
        return None
    step = float(rate.steps[last + 1])
    share = (rate.steps[-1] - step) / max(1.0, rate.steps[-1] - rate.steps[0])
    if share < 0.15 or len(is_alive) < 2:
        return None
    return warning(0.93, name=rate.name, step=step, last=rate.steps[-1], share=share)


def constant_loss(e: Evidence) -> Finding | None:
    """A loss is the same to the last bit at every point."""
    for curve in (e.train, e.validation):
        values = curve.values[curve.is_finite]
        if len(values) < (5 if curve is e.train else 3) or np.ptp(values) != 0 or np.ptp(curve.steps) == 0:
            continue
        more = [] if values[0] else ["zero"]
        if len(e.norm) and np.all(e.norm.values == 0):
            more.append("no_gradient")
        if curve is e.validation and len(e.trained) > 2 and np.ptp(e.trained.values) > 0:
            more.append("validation_only")
        return fault(0.95, *more, name=curve.name, points=len(values), value=values[0], train=e.train.name)
    return None


def learning_rate_too_small(e: Evidence) -> Finding | None:
    """The loss hardly moves, and the learning rate is tiny."""
    if not _is_flat(e) or len(e.rate) < 3:
        return None
    peak = float(e.rate.values.max())
    if not 0 < peak < _TINY_RATE:
        return None
    start, end = e.levels
    slope = slope_of(e.trained.steps, e.trained.values)
    return fault(0.85, name=e.train.name, start=start, end=end, peak=peak, rate=e.rate.name, slope=slope * 1000)


def not_learning(e: Evidence) -> Finding | None:
    """The loss stays where an untrained model begins."""
    if not _is_flat(e) or len(e.trained) < 15:
        return None
    (start, end), chance = e.levels, e.chance
    if not (end > 0.85 * chance or (np.isnan(chance) and end > 7)):
        return None
    more = ("chance",) if np.isfinite(chance) else ()
    return warning(0.6, *more, name=e.train.name, start=start, end=end, last=e.last_step, chance=chance)


def plateau(e: Evidence) -> Finding | None:
    """The loss fell, then stopped falling while the learning rate was still high."""
    train = e.trained
    if len(train) < 30:
        return None
    late = train.steps >= train.steps[0] + 0.6 * np.ptp(train.steps)
    if np.count_nonzero(late) < 10:
        return None
    start, end = e.levels
    steps, values = train.steps[late], train.values[late]
    fall = -slope_of(steps, values) * float(np.ptp(steps))
    chance = 2.5 * e.noise * float(np.sqrt(12 / len(steps)))  # what noise makes of a level line
    if start - end < 0.1 * abs(start) or fall > max(0.004 * abs(end), chance) or end > start:
        return None
    rates = np.interp(steps, e.rate.steps, e.rate.values) if len(e.rate) else np.zeros(0)
    if len(rates) and np.median(rates) < 0.4 * e.rate.values.max():
        return None  # what a schedule that has run down looks like
    more = ("rate",) if len(rates) else ()
    return note(
        0.7 if more else 0.5,
        *more,
        name=train.name,
        step=steps[0],
        last=steps[-1],
        fall=fall,
        level=end,
        rate=float(np.median(rates)) if more else np.nan,
    )


def gradient_always_clipped(e: Evidence) -> Finding | None:
    """The gradient's norm is above the clip at nearly every step: clipping sets the step's length."""
    norm = e.norm
    if len(norm) < 20:
        return None
    values = norm.values[len(norm) // 5 :]
    clip = e.setting(*_CLIP)
    top = float(values.max())
    is_flat_top = top > 0 and float(np.mean(values > 0.999 * top)) > 0.8
    if is_flat_top:
        return warning(0.85, "after", name=norm.name, value=top, share=float(np.mean(values > 0.999 * top)))
    if clip is None or clip[1] <= 0:
        return None
    share, ratio = float(np.mean(values > clip[1])), float(np.median(values)) / clip[1]
    if share < 0.95 or ratio < 2:
        return None
    return warning(
        0.85, "before", name=norm.name, value=float(np.median(values)), share=share, clip=clip[1], setting=clip[0]
    )


def no_warmup(e: Evidence) -> Finding | None:
    """The learning rate starts at its top, and training starts with a leap."""
    rate, values = e.rate, e.trained.values
    if len(rate) < 5 or len(values) < 20 or rate.values[0] < 0.95 * rate.values.max() or rate.values[0] <= 0:
        return None
    if rate.steps[0] > 0.05 * rate.steps[-1]:
        return None
    early = values[: max(4, len(values) // 8)]
    rise = float(early.max() - values[0])
    norm = e.norm
    is_wild = len(norm) >= 20 and norm.values[: len(norm) // 8].max() > 8 * np.median(norm.values[len(norm) // 4 :])
    if rise < max(0.1 * abs(values[0]), 6 * e.noise):
        return None
    return warning(
        0.8,
        *(("norm",) if is_wild else ()),
        name=rate.name,
        rate=float(rate.values[0]),
        start=float(values[0]),
        top=float(early.max()),
        step=float(e.trained.steps[int(np.argmax(early))]),
        norm=float(norm.values[: len(norm) // 8].max()) if is_wild else np.nan,
    )


def _is_flat(e: Evidence) -> bool:
    """Tell whether the training loss hardly moves: by under 1.5% over the run."""
    values = e.trained.values
    if len(values) < 8 or np.ptp(values) == 0:
        return False
    start, end = ends_of(values, 0.15)
    return abs(start - end) < 0.015 * abs(start)
