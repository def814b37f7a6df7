"""Causes that break a curve: NaN, divergence, spikes, leaps at a resume, a collapsed loss scale, stalls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from qwen_core.tracking.doctor.evidence import Evidence, Resume
from qwen_core.tracking.doctor.finding import Finding, fault, note, warning
from qwen_core.tracking.doctor.record import Curve
from qwen_core.tracking.doctor.signs import shifts_at, spikes_of

_STALL_SECONDS, _STALL_INTERVALS = 300.0, 20.0
_LEAST_LEAP = 6.0  # in units of its own uncertainty
_KINDS = (
    *("grad_norm_outlier", "rollback", "diverged", "silent_rank", "aborted", "memory_near_limit"),
    *("throughput_drop", "data_exhausted", "loss_not_finite"),
)  # of the guards, those that no other cause takes up
_WARM_UP = 0.1  # share of the run that may be wild


def nan_filtered(e: Evidence) -> Finding | None:
    """Points are NaN or infinite: no chart shows them, and what is left may be a dot."""
    hidden = _hidden(e)
    if hidden is not None:
        return hidden
    for curve in (e.validation, e.train):
        lost = int(np.count_nonzero(~curve.is_finite))
        if not lost or lost < 0.05 * len(curve):
            continue
        left = len(curve) - lost
        place = int(np.flatnonzero(~curve.is_finite)[0])
        return fault(
            0.97,
            "dot" if left == 1 else "empty" if left == 0 else "some",
            name=curve.name,
            lost=lost,
            points=len(curve),
            left=left,
            step=curve.steps[place],
        )
    return None


def diverged(e: Evidence) -> Finding | None:
    """The training loss ends as NaN, or far above what it had reached."""
    train = e.train
    if len(train) >= 4 and not train.is_finite[-1] and np.count_nonzero(train.is_finite) >= 3:
        alive = np.flatnonzero(train.is_finite)
        place = int(alive[-1]) + 1
        figures = _before(e, train.steps[place], float(train.values[alive[-1]]))
        return fault(0.97, "nan", *_told_by(figures), **figures)
    values = e.trained.values
    if len(values) < 12:
        return None
    course, start = e.course, e.levels[0]
    low = int(np.argmin(course))
    tail = values[-max(3, len(values) // 10) :]
    height = float(np.median(tail) - course[low])
    is_high = height > max(0.3 * (start - course[low]), 0.15 * abs(course[low])) and height > 12 * e.noise
    if not is_high or np.quantile(tail, 0.1) < course[low] + 0.5 * height or low > 0.95 * len(values):
        return None
    step = e.trained.steps[low + int(np.argmax(course[low:] > course[low] + 0.5 * height))]
    figures = {**_before(e, step, float(np.median(tail))), "low": float(course[low])}
    return fault(0.85, "high", *_told_by(figures), **figures)


def loss_spike(e: Evidence) -> Finding | None:
    """The training loss leaps up and comes back."""
    train, events = e.trained, e.events("loss_spike")
    places = [p for p in spikes_of(train.values, e.course) if _recovered(e, int(p))]
    places = [p for p in places if train.steps[p] > train.steps[0] + _WARM_UP * np.ptp(train.steps)]
    if not places and not events:
        return None
    more = ["events"] if events else []
    figures: dict[str, object] = {"events": len(events), "event_steps": _steps(events), "count": len(places)}
    if places:
        top = max(places, key=lambda p: train.values[p] - e.course[p])
        more.append("curve")
        figures |= {"step": train.steps[top], "value": train.values[top], "level": e.course[top]}
        figures |= {"name": train.name, "steps": _steps([float(train.steps[p]) for p in places])}
    count = max(len(places), len(events))
    return (warning if count >= 3 else note)(0.9, *more, **figures)


def jump_after_resume(e: Evidence) -> Finding | None:
    """The level of the training loss leaps where training went on from a checkpoint."""
    if len(e.trained) < 12 or np.ptp(e.trained.steps) == 0:
        return None
    found = _leaps(e.trained, e.resumes) + _leaps(*_joints(e))
    level = abs(float(np.median(e.trained.values)))
    found = [one for one in found if one[2] > _LEAST_LEAP and abs(one[1]) > 0.02 * level]
    if not found:
        return None
    resume, leap, size = max(found, key=lambda one: abs(one[1]))
    return warning(
        0.9 if resume.how != "pause" else 0.7,
        resume.how,
        "up" if leap > 0 else "down",
        name=e.train.name,
        step=resume.step,
        leap=leap,
        sigma=size,
        share=leap / level,
        count=len(found),
    )


def loss_scale_collapsed(e: Evidence) -> Finding | None:
    """The scale of fp16 falls and falls: every step overflows."""
    scale, events = e.curve("loss_scale").by_step(), e.events("loss_scale_collapsed")
    if len(scale) < 6:
        return None
    tail = scale.values[-max(3, len(scale) // 3) :]
    is_falling = bool(np.all(np.diff(tail) <= 0) and np.count_nonzero(np.diff(tail) < 0) >= 2)
    top, last = float(scale.values.max()), float(scale.values[-1])
    if not (last <= 1 < top or (is_falling and last <= top / 256) or events):
        return None
    return fault(
        0.95, name=scale.name, top=top, last=last, step=scale.steps[-1], halvings=float(np.log2(top / max(last, 1e-9)))
    )


def stalled(e: Evidence) -> Finding | None:
    """For long no step was finished, though none is missing."""
    events = e.events("stalled_step")
    seconds = np.diff(e.trained.seconds)
    figures: dict[str, object] = {"events": len(events), "event_steps": _steps(events)}
    more = ["events"] if events else []
    if len(seconds) >= 8 and np.isfinite(seconds).all():
        usual = float(np.median(seconds))
        apart = np.diff(e.trained.steps)
        is_long = (seconds > max(_STALL_SECONDS, _STALL_INTERVALS * usual)) & (apart <= 3 * np.median(apart))
        is_long &= ~np.isin(e.trained.steps[1:], [one.step for one in e.resumes if one.how == "rewind"])
        if is_long.any():
            place = int(np.argmax(np.where(is_long, seconds, 0)))
            more.append("clock")
            figures |= {"seconds": seconds[place], "usual": usual, "step": e.trained.steps[place + 1]}
            figures |= {"count": int(is_long.sum())}
    if not more:
        return None
    return (warning if events else note)(0.8, *more, **figures)


def stopped_early(e: Evidence) -> Finding | None:
    """The run ended before the steps that were set for it."""
    planned = e.setting("max_steps", "train_iters", "total_steps")
    if planned is None or planned[1] <= 0 or e.run.status not in ("FAILED", "KILLED", "FINISHED"):
        return None
    if not e.last_step < 0.95 * planned[1] or e.interval > 0.05 * planned[1]:
        return None
    make = note if e.run.status == "FINISHED" else warning
    return make(0.8, setting=planned[0], planned=planned[1], last=e.last_step, status=e.run.status)


def guard_events(e: Evidence) -> Finding | None:
    """The guards of training saw what no curve shows: rollbacks, workers that were lost, memory nearly full."""
    seen = {kind: e.events(kind) for kind in _KINDS}
    seen = {kind: steps for kind, steps in seen.items() if steps}
    if not seen:
        return None
    told = "; ".join(f"{kind} x {len(steps)} ({_steps(steps)})" for kind, steps in seen.items())
    is_grave = bool(seen.keys() & {"rollback", "diverged", "aborted", "silent_rank", "data_exhausted"})
    return (warning if is_grave else note)(0.95, events=told)


def _hidden(e: Evidence) -> Finding | None:
    """Find the trace of a NaN that the tool replaced: a loss of exactly 0 beside a gradient that is NaN."""
    norm = e.curve("grad_norm")
    broken = norm.steps[~norm.is_finite]
    zero = np.intersect1d(e.train.steps[e.train.values == 0], broken)
    if not len(zero):
        return None
    return fault(
        0.95, "hidden", name=e.train.name, lost=len(zero), points=len(e.train), left=0, step=zero[0], norm=norm.name
    )


def _before(e: Evidence, step: float, value: float) -> dict[str, Any]:
    """Tell what the other curves showed just before."""
    figures: dict[str, Any] = {"name": e.train.name, "step": step, "value": value, "low": np.nan}
    if len(e.rate):
        place = max(0, int(np.searchsorted(e.rate.steps, step)) - 1)
        figures["rate"] = float(e.rate.values[place])
    before = e.norm.values[e.norm.steps < step]
    if len(before) >= 6:
        figures["norm"], figures["usual_norm"] = float(before[-5:].max()), float(np.median(before))
    return figures


def _told_by(figures: Mapping[str, Any]) -> tuple[str, ...]:
    is_grown = "norm" in figures and figures["norm"] > 3 * figures["usual_norm"]
    return (*(("rate",) if "rate" in figures else ()), *(("norm",) if is_grown else ()))


def _recovered(e: Evidence, place: int) -> bool:
    after = e.trained.values[place + 1 :]
    return len(after) >= 2 and bool(np.median(after[:10]) < (e.trained.values[place] + e.course[place]) / 2)


def _leaps(curve: Curve, resumes: Sequence[Resume]) -> list[tuple[Resume, float, float]]:
    """Measure the leap at each resume, and its size in units of its own uncertainty."""
    places = np.searchsorted(curve.steps, [resume.step for resume in resumes]).tolist()
    shifts = shifts_at(curve.values, places)
    return [(resume, leap, size) for resume, (leap, size) in zip(resumes, shifts, strict=True)]


def _joints(e: Evidence) -> tuple[Curve, list[Resume]]:
    """Lay runs that continue one another into one curve, and name where each begins."""
    parts = [part.curve for part in e.parts]
    if len(parts) < 2 or any(b.steps[0] <= a.steps[0] for a, b in pairwise(parts)):
        return e.trained, []
    fields = [np.concatenate([getattr(p, name) for p in parts]) for name in ("steps", "values", "seconds")]
    whole = Curve(parts[0].name, *fields).by_step()
    return whole, [Resume(float(part.steps[0]), "run") for part in parts[1:]]


def _steps(steps: list[float]) -> str:
    told = ", ".join(f"{step:,.0f}" for step in steps[:5])
    return f"{told}, ..." if len(steps) > 5 else told
