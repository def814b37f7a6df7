"""Causes that lie in the x-axis: the points are there, but not where a chart could show them as a curve."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from qwen_core.tracking.doctor.evidence import Evidence
from qwen_core.tracking.doctor.finding import Finding, fault, warning
from qwen_core.tracking.doctor.names import role_of, words_of
from qwen_core.tracking.doctor.record import Curve, Floats
from qwen_core.tracking.doctor.signs import ends_of, gaps_of, noise_of

_EARLIEST, _LATEST = 946_684_800.0, 4_102_444_800.0  # the years 2000 and 2100, in seconds
_DAY = 86_400.0
_DEEP = 5.0  # intervals that a step falls back by before it is more than a late message


def constant_step(e: Evidence) -> Finding | None:
    """Several points, all at one step."""
    stuck = [c for c in (e.validation, e.train) if len(c) > 1 and np.ptp(c.steps) == 0]
    if not stuck:
        return None
    curve = stuck[0]
    values = curve.values[curve.is_finite]
    low, high = (float(values.min()), float(values.max())) if len(values) else (np.nan, np.nan)
    more = ("both",) if len(stuck) > 1 else ()
    return fault(
        0.98, *more, name=curve.name, points=len(curve), step=curve.steps[0], low=low, high=high, last=e.last_step
    )


def epoch_as_step(e: Evidence) -> Finding | None:
    """Validation counts epochs while training counts steps: its curve is a dot at the left edge."""
    steps, last = np.unique(e.validation.steps), e.last_step
    if not len(steps) or not last >= 20 or last < 5 * max(1.0, steps[-1]):
        return None
    if len(steps) == 1:
        if steps[0] > 0.1 * last or not e.is_validated_late:
            return None
    elif np.median(np.diff(steps)) != 1 or steps[0] > 1 or np.any(steps != np.round(steps)):
        return None
    epochs = e.curve("epoch")
    is_same = len(epochs) > 0 and abs(np.max(epochs.values) - steps[-1]) <= 1
    return fault(
        0.95 if is_same else 0.85,
        *(("epochs",) if is_same else ()),
        validation=e.validation.name,
        points=len(e.validation),
        first=steps[0],
        last_validation=steps[-1],
        train=e.train.name,
        last=last,
        epochs=float(np.max(epochs.values)) if is_same else np.nan,
        factor=last / max(1.0, steps[-1]),
    )


def other_step_unit(e: Evidence) -> Finding | None:
    """Training and validation count in different units, such as steps and tokens."""
    held, train = e.validated, e.trained
    if len(held) < 2 or len(train) < 2 or min(held.steps[-1], train.steps[-1]) <= 0:
        return None
    ratio = float(held.steps[-1] / train.steps[-1])
    if 0.25 < ratio < 4:
        return None
    unit = _unit(e, max(ratio, 1 / ratio), float(max(held.steps[-1], train.steps[-1])))
    if unit is None and not _ends_together(held, train):
        return None
    return fault(
        0.9 if unit else 0.7,
        *((unit,) if unit else ()),
        validation=held.name,
        last_validation=held.steps[-1],
        train=train.name,
        last=train.steps[-1],
        factor=max(ratio, 1 / ratio),
    )


def time_as_step(e: Evidence) -> Finding | None:
    """The x-axis is the clock."""
    for curve in (e.validation, e.train):
        if len(curve) < 2:
            continue
        for unit, scale in (("s", 1.0), ("ms", 1000.0)):
            when = curve.steps / scale
            is_date = bool(np.all((when > _EARLIEST) & (when < _LATEST)))
            logged = np.nanmax(np.abs(when - curve.seconds)) if np.isfinite(curve.seconds).all() else np.nan
            if is_date and not logged > _DAY:
                figures = {"name": curve.name, "first": curve.steps[0], "last": curve.steps[-1], "unit": unit}
                return fault(0.97, "date", **figures, seconds=np.ptp(when))
        if _ticks_with_clock(curve):
            return fault(
                0.85,
                name=curve.name,
                first=curve.steps[0],
                last=curve.steps[-1],
                unit="s",
                seconds=curve.seconds[-1] - curve.seconds[0],
            )
    return None


def steps_go_backwards(e: Evidence) -> Finding | None:
    """The step falls back while the run goes on: the chart runs to and fro."""
    for curve in (e.train, e.validation):
        falls = _deep_falls(curve)
        if not len(falls):
            continue
        to = curve.steps[falls + 1]
        is_anew = bool(to.min() <= max(1.0, 0.02 * curve.steps.max()))
        if not is_anew and len(falls) <= max(3, 0.05 * len(curve)):
            continue  # a resume from a checkpoint that logs some steps again
        place = int(falls[np.argmin(to)])
        is_closing = len(falls) == 1 and place == len(curve) - 2
        return fault(
            0.9,
            "summary" if is_closing else "anew" if is_anew else "order",
            name=curve.name,
            count=len(falls),
            before=curve.steps[place],
            after=curve.steps[place + 1],
            points=len(curve),
        )
    return None


def duplicate_steps(e: Evidence) -> Finding | None:
    """Many steps have several different values: more than one process writes."""
    for curve in (e.train, e.validation):
        if len(curve) < 6 or len(_deep_falls(curve)):
            continue
        pairs = np.unique(np.column_stack((curve.steps, curve.values)), axis=0)
        steps, counts = np.unique(pairs[:, 0], return_counts=True)
        share = float(np.mean(counts > 1))
        if share < 0.2 or len(steps) < 3:
            continue
        place = int(np.argmax(counts))
        values = pairs[pairs[:, 0] == steps[place], 1]
        return warning(
            0.9,
            name=curve.name,
            share=share,
            each=float(np.median(counts[counts > 1])),
            step=steps[place],
            low=np.nanmin(values),
            high=np.nanmax(values),
        )
    return None


def gap(e: Evidence) -> Finding | None:
    """A stretch of steps has no points, and the curve is regular on both sides."""
    for curve in (e.trained, e.validated):
        if len(curve) < 12 or curve.steps[-1] > _EARLIEST:
            continue
        usual = curve.interval
        found = [one for one in gaps_of(curve.steps) if _is_regular_around(curve.steps, one, usual)]
        if not found:
            continue
        before, after = max(found, key=lambda one: one[1] - one[0])
        place = int(np.searchsorted(curve.steps, after))
        return warning(
            0.9,
            *_kind_of_gap(curve, place, usual),
            name=curve.name,
            before=before,
            after=after,
            usual=usual,
            missing=round((after - before) / usual) - 1,
            count=len(found),
            seconds=curve.seconds[place] - curve.seconds[place - 1],
        )
    return None


def run_per_resume(e: Evidence) -> Finding | None:
    """The curve lies in pieces in several runs of the experiment."""
    parts = e.parts
    if len(parts) < 2:
        return None
    told = "; ".join(
        f"{part.run.name or '-'} {part.run.run_id[:8]}: {part.curve.steps.min():g}-{part.curve.steps.max():g}"
        for part in parts[:6]
    )
    is_anew = any(b.curve.steps[0] <= a.curve.steps[0] for a, b in pairwise(parts))
    return fault(
        0.75 if is_anew else 0.9,
        *(("anew",) if is_anew else ()),
        count=len(parts),
        pieces=told,
        name=parts[0].curve.name,
        first_run=parts[0].run.run_id,
    )


def renamed_metric(e: Evidence) -> Finding | None:
    """One curve ends and another begins in its place under another name."""
    for role in ("validation_loss", "train_loss"):
        curves = [
            curve.by_step()
            for name, curve in e.run.curves.items()
            if role_of(name) == role and "test" not in words_of(name)
        ]
        curves = sorted((c for c in curves if len(c) > 1), key=lambda c: float(c.steps[0]))
        for first, second in pairwise(curves):
            if _goes_on(first, second):
                return warning(
                    0.85,
                    first=first.name,
                    second=second.name,
                    end=first.steps[-1],
                    start=second.steps[0],
                    last=second.steps[-1],
                )
    return None


def _unit(e: Evidence, factor: float, longest: float) -> str | None:
    tokens = e.curve("tokens")
    if len(tokens) and abs(np.max(tokens.values) / longest - 1) < 0.05:
        return "tokens"
    batch = e.batch_size
    passes = e.setting("gradient_accumulation_steps", "accumulate_grad_batches")
    if batch and abs(factor / batch[1] - 1) < 0.05:
        return "samples"
    if passes and passes[1] > 1 and abs(factor / passes[1] - 1) < 0.05:
        return "micro_batches"
    if batch and passes and abs(factor / (batch[1] * passes[1]) - 1) < 0.05:
        return "samples"
    return None


def _ends_together(first: Curve, second: Curve) -> bool:
    """Tell whether two curves were logged over the same stretch of time."""
    seconds = np.concatenate((first.seconds, second.seconds))
    if not np.isfinite(seconds).all() or np.ptp(seconds) == 0:
        return False
    whole = float(np.ptp(seconds))
    spans = [float(np.ptp(curve.seconds)) / whole for curve in (first, second)]
    return min(spans) > 0.7 and abs(first.seconds[-1] - second.seconds[-1]) < 0.2 * whole


def _ticks_with_clock(curve: Curve) -> bool:
    """Tell whether the step advances as the clock does, point by point, at an irregular pace."""
    if len(curve) < 8 or not np.isfinite(curve.seconds).all():
        return False
    steps, seconds = np.diff(curve.steps), np.diff(curve.seconds)
    if seconds.sum() < 30 or len(np.unique(steps)) < max(4, 0.2 * len(steps)) or steps.min() < 0:
        return False
    is_whole = abs(steps.sum() / seconds.sum() - 1) < 0.02
    return bool(is_whole and np.median(np.abs(steps - seconds)) <= max(1.0, 0.05 * np.median(seconds)))


def _deep_falls(curve: Curve) -> NDArray[np.intp]:
    """Find places after which the step falls by more than a few intervals."""
    if len(curve) < 4:
        return np.zeros(0, np.intp)
    apart = np.diff(curve.steps)
    rises = apart[apart > 0]
    usual = float(np.median(rises)) if len(rises) else 1.0
    return np.flatnonzero(apart < -_DEEP * usual)


def _is_regular_around(steps: Floats, gap_: tuple[float, float], usual: float) -> bool:
    place = int(np.searchsorted(steps, gap_[1]))
    if not 2 <= place <= len(steps) - 2:
        return False  # the first point and the last stand alone in many schedules
    apart = np.diff(steps)
    return bool(max(apart[place - 2], apart[place]) <= 3 * usual)


def _kind_of_gap(curve: Curve, place: int, usual: float) -> tuple[str, ...]:
    """Tell by the clock whether training went on meanwhile."""
    seconds = np.diff(curve.seconds)
    if not np.isfinite(seconds).all() or not np.median(seconds) > 0:
        return ()
    steps = (curve.steps[place] - curve.steps[place - 1]) / usual
    took = seconds[place - 1] / float(np.median(seconds))
    return ("went_on",) if took > 0.5 * steps else ("skipped",) if took < 3 else ()


def _goes_on(first: Curve, second: Curve) -> bool:
    """Tell whether the second curve begins where the first ends, in step and in level."""
    if not first.steps[-1] < second.steps[0] <= first.steps[-1] + 3 * first.interval:
        return False
    (start, end), (level, _) = ends_of(first.values), ends_of(second.values)
    return bool(abs(level - end) < 0.3 * abs(start - end) + 3 * noise_of(first.values))
