"""Causes that repeat or scatter: the epoch's period, held-out sets and batches that are too small."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from qwen_core.tracking.doctor.evidence import Evidence
from qwen_core.tracking.doctor.finding import Finding, note, warning
from qwen_core.tracking.doctor.record import Curve, Floats
from qwen_core.tracking.doctor.signs import folded, noise_of, slope_of, smooth

_LEAST_EXPLAINED = 0.3
_LEAST_PERIODS = 2.8
_LEAST_POINTS = 10  # of a period
_FIRST_FALL = 0.15  # share of the run whose steep fall says nothing of a pattern


class _Period(NamedTuple):
    steps: float
    explained: float  # share of the variance
    is_known: bool  # whether the metric that counts epochs confirms it


def epoch_sawtooth(e: Evidence) -> Finding | None:
    """The training loss repeats a pattern in each epoch: the data comes in the same, sorted order."""
    found = _period(e)
    if found is None or _is_staircase(e, found):
        return None
    return _repeated(e, found, 0.9 if found.is_known else 0.7, height=_height(e, found.steps))


def epoch_staircase(e: Evidence) -> Finding | None:
    """The training loss falls at each start of an epoch and hardly within: the model remembers what it saw."""
    found = _period(e)
    if found is None or not _is_staircase(e, found):
        return None
    return _repeated(e, found, 0.85 if found.is_known else 0.65, drop=-_boundary_leap(e, found.steps))


def noisy_validation(e: Evidence) -> Finding | None:
    """The validation loss scatters so much that it hides its own course."""
    held = e.validated
    if len(held) < 6 or not (e.is_axis_shared or not len(e.trained)):
        return None
    noise, level = noise_of(held.values), abs(float(np.median(held.values)))
    half = len(held) // 2
    fall = abs(float(np.median(held.values[:half]) - np.median(held.values[half:])))
    if noise < 0.015 * level or noise < 0.5 * fall:
        return None
    wanted = max(0.01 * level, 0.1 * fall)
    return warning(
        0.8, name=held.name, noise=noise, level=level, fall=fall, points=len(held), times=float((noise / wanted) ** 2)
    )


def noisy_training(e: Evidence) -> Finding | None:
    """The training loss scatters so much that it hides its own course."""
    if len(e.trained) < 30:
        return None
    level, (start, end) = abs(float(np.median(e.trained.values))), e.levels
    if e.noise < 0.2 * level or e.noise < 0.3 * abs(start - end):
        return None
    batch = e.batch_size
    return note(
        0.7,
        *(("batch",) if batch else ()),
        name=e.train.name,
        noise=e.noise,
        level=level,
        share=e.noise / level,
        setting=batch[0] if batch else "",
        batch=batch[1] if batch else np.nan,
    )


def _repeated(e: Evidence, found: _Period, confidence: float, **figures: Any) -> Finding:
    return warning(
        confidence,
        "known" if found.is_known else "guessed",
        name=e.train.name,
        period=found.steps,
        explained=found.explained,
        count=float(np.ptp(e.trained.steps)) / found.steps,
        **figures,
    )


def _period(e: Evidence) -> _Period | None:
    """Find the period that the training loss repeats, where there is one."""
    train = e.trained
    if len(train) < 3 * _LEAST_POINTS or e.interval <= 0:
        return None
    known = _epoch_steps(e)
    period = known or _sharpened(train, _repeats(train))
    if period is None or period < _LEAST_POINTS * e.interval or np.ptp(train.steps) < _LEAST_PERIODS * period:
        return None
    later = train.steps >= train.steps[0] + max(0.5 * period, _FIRST_FALL * np.ptp(train.steps))
    rest, phase = _deviation(train, period)[later], (train.steps[later] / period) % 1.0
    explained = folded(rest, phase)
    if explained < (_LEAST_EXPLAINED if known else 1.5 * _LEAST_EXPLAINED) or _is_rate_cyclic(e, period):
        return None
    halves = np.array_split(np.arange(len(rest)), 2)
    if min(folded(rest[half], phase[half], 8) for half in halves) < 0.5 * _LEAST_EXPLAINED:
        return None  # a single wild epoch is no pattern
    return _Period(period, explained, known is not None)


def _epoch_steps(e: Evidence) -> float | None:
    """Work out the steps of an epoch from the metric that counts epochs."""
    epochs = e.curve("epoch").by_step()
    if len(epochs) < 3 or np.ptp(epochs.values) < 1 or np.ptp(epochs.steps) == 0:
        return None
    per_step = slope_of(epochs.steps, epochs.values)
    return 1 / per_step if per_step > 0 else None


def _repeats(train: Curve) -> float | None:
    """Find the lag at which the curve's deviation from its course is most like itself."""
    count = min(len(train), 4096)
    # without the first fall, whose deviation from any course would drown the rest
    steps = np.linspace(train.steps[0] + _FIRST_FALL * np.ptp(train.steps), train.steps[-1], count)
    values = np.interp(steps, train.steps, train.values)
    rest = values - smooth(values, count // 3)
    rest = rest - np.median(rest)
    limit = 4 * float(np.median(np.abs(rest)))
    rest = np.clip(rest, -limit, limit)
    power = np.abs(np.fft.rfft(rest, 2 * count)) ** 2
    like = np.fft.irfft(power)[:count] / np.arange(count, 0, -1)
    if like[0] <= 0:
        return None
    like = like / like[0]
    below = np.flatnonzero(like < 0)
    start, end = (int(below[0]) if len(below) else count), int(count / _LEAST_PERIODS)
    if end - start < 3:
        return None
    window = like[start:end]
    is_top = np.append(True, window[1:] >= window[:-1]) & np.append(window[:-1] >= window[1:], False)
    tops = np.flatnonzero(is_top & (window >= max(0.35, 0.8 * float(window.max()))))
    if not len(tops) or tops[0] == 0:
        return None
    return float((start + tops[0]) * (steps[1] - steps[0]))  # the first: twice a period is like it too


def _sharpened(train: Curve, period: float | None) -> float | None:
    """Find the period near a guess that explains the most."""
    if period is None:
        return None
    tried = period * np.linspace(0.95, 1.05, 41)
    rest = _deviation(train, period)
    return float(max(tried, key=lambda one: folded(rest, (train.steps / one) % 1.0)))


def _deviation(train: Curve, period: float) -> Floats:
    per_period = max(3, round(period / train.interval))
    kernel = min(per_period, len(train) - 1)
    sums = np.cumsum(np.insert(train.values, 0, 0.0))
    means = (sums[kernel:] - sums[:-kernel]) / kernel
    middle = np.arange(len(means)) + (kernel - 1) / 2
    # straight on beyond the first and the last whole window, for the average there would lag behind
    places = np.arange(len(train), dtype=np.float64)
    course = np.interp(places, middle, means)
    return np.asarray(train.values - course)


def _is_rate_cyclic(e: Evidence, period: float) -> bool:
    """Tell whether the learning rate has the same period, as with warm restarts: then it is the cause."""
    rate = e.rate
    if len(rate) < 3 * _LEAST_POINTS:
        return False
    rises = np.flatnonzero(np.diff(rate.values) > 0.2 * rate.values.max())
    return len(rises) >= 2 and abs(float(np.median(np.diff(rate.steps[rises]))) / period - 1) < 0.1


def _boundary_leap(e: Evidence, period: float) -> float:
    """Measure the usual leap of the loss from the end of an epoch to the start of the next."""
    steps, values = e.trained.steps, e.trained.values
    leaps = []
    for bound in np.arange(period, steps[-1], period):
        before = values[(steps <= bound) & (steps > bound - 0.15 * period)]
        after = values[(steps > bound) & (steps <= bound + 0.15 * period)]
        if len(before) and len(after):
            leaps.append(float(np.median(after) - np.median(before)))
    return float(np.median(leaps)) if leaps else 0.0


def _is_staircase(e: Evidence, found: _Period) -> bool:
    """Tell whether the loss falls at the bounds of epochs and keeps still between them."""
    if not found.is_known:
        return False
    period = found.steps
    leap = _boundary_leap(e, period)
    within = []
    for start in np.arange(0, e.trained.steps[-1] - 0.9 * period, period):
        inside = (e.trained.steps > start + 0.1 * period) & (e.trained.steps <= start + 0.9 * period)
        within.append(slope_of(e.trained.steps[inside], e.trained.values[inside]) * period)
    return leap < 0 and bool(within) and abs(float(np.median(within[1:] or within))) < 0.4 * abs(leap)


def _height(e: Evidence, period: float) -> float:
    rest = _deviation(e.trained, period)
    return float(np.quantile(rest, 0.9) - np.quantile(rest, 0.1))
