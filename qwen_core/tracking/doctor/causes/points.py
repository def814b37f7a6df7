"""Causes that lie in how often, and whether, the validation loss was measured."""

from __future__ import annotations

import numpy as np

from qwen_core.tracking.doctor.evidence import Evidence
from qwen_core.tracking.doctor.finding import Finding, fault, warning
from qwen_core.tracking.doctor.names import role_of, roles_of
from qwen_core.tracking.doctor.record import Curve
from qwen_core.tracking.doctor.signs import ends_of

_INTERVALS = (
    *("eval_steps", "eval_interval", "eval_every_steps", "eval_every", "eval_freq", "evaluation_interval"),
    *("val_check_interval", "validation_interval", "val_interval", "val_every"),
)
_STRATEGY = ("eval_strategy", "evaluation_strategy")
_SWITCHES = (*_STRATEGY, "do_eval", "val_size", "validation_split", "limit_val_batches")
_AT_END, _AT_START = 0.97, 0.02
_FEW = 5


def no_validation(e: Evidence) -> Finding | None:
    """No metric of the run was measured on held-out data."""
    if len(e.validation) or e.held_out or not len(e.train):
        return None
    switch = e.word(*_SWITCHES)
    more = ("setting",) if switch else ()
    name, value = switch or ("", "")
    return fault(
        0.95 if switch and value in ("no", "false", "0", "0.0") else 0.8,
        *more,
        metrics=len(e.run.curves) + len(e.run.others),
        train=e.train.name,
        setting=name,
        value=value,
        every=_every(e),
    )


def validation_without_loss(e: Evidence) -> Finding | None:
    """Validation ran, and logged figures, but no loss."""
    if len(e.validation) or not e.held_out or _look_alike(e):
        return None
    timed = any(name.endswith(("_runtime", "_per_second", "_time")) for name in e.held_out)
    return fault(0.9 if timed else 0.7, names=", ".join(sorted(e.held_out)[:4]), points=_points(e, e.held_out))


def unexpected_name(e: Evidence) -> Finding | None:
    """A metric looks like the validation loss, but its name does not say so."""
    if len(e.validation):
        return None
    found = _look_alike(e)
    if found is None:
        return None
    start, end = ends_of(found.by_step().values)
    return warning(0.6, name=found.name, points=len(found), start=start, end=end, train=e.train.name)


def validation_in_another_run(e: Evidence) -> Finding | None:
    """The validation loss lies in a run of its own, beside the one that trained."""
    if len(e.validation) and len(e.train):
        return None
    missing, present = ("train_loss", "validation_loss") if len(e.validation) else ("validation_loss", "train_loss")
    for other in e.run.siblings:
        roles = roles_of(other.curves, {})
        if missing in roles and present not in roles:
            curve = other.curves[roles[missing]]
            more = ("this_validates",) if missing == "train_loss" else ("other_validates",)
            figures = {"other": other.run_id, "other_name": other.name or "-", "name": curve.name}
            every = max(1, round(float(max(curve.steps.max(), e.validation.steps.max(initial=0))) / 20))
            return fault(0.9, *more, **figures, points=len(curve), every=every)
    return None


def evaluated_once_at_end(e: Evidence) -> Finding | None:
    """One validation point, where training ends."""
    step = _single(e)
    if step is None or not len(e.trained) or step < _AT_END * e.last_step or len(e.trained) < 2:
        return None
    strategy = e.word(*_STRATEGY)
    epochs = e.setting("num_train_epochs", "max_epochs", "epochs")
    more = ("strategy",) if strategy else ()
    if strategy and strategy[1] == "epoch" and epochs and epochs[1] <= 1:
        more = ("one_epoch",)
    return fault(
        0.95,
        *more,
        validation=e.validation.name,
        step=step,
        train=e.train.name,
        train_points=len(e.trained),
        first=e.trained.steps[0],
        last=e.last_step,
        setting=strategy[0] if strategy else "",
        value=strategy[1] if strategy else "",
        every=_every(e),
    )


def evaluated_once_at_start(e: Evidence) -> Finding | None:
    """One validation point, before or as training begins."""
    step = _single(e)
    if step is None or not e.last_step >= 10 or step > max(1.0, _AT_START * e.last_step) or e.is_validated_late:
        return None
    return fault(0.85, validation=e.validation.name, step=step, last=e.last_step, every=_every(e))


def interval_longer_than_run(e: Evidence) -> Finding | None:
    """The interval between validations is set, and the run never reached it."""
    interval = e.setting(*_INTERVALS)
    strategy = e.word(*_STRATEGY)
    if interval is None or interval[1] <= 1 or (strategy and strategy[1] in ("no", "epoch")):
        return None
    if not e.last_step < interval[1] or len(np.unique(e.validation.steps)) > 1:
        return None
    figures = {"setting": interval[0], "value": interval[1], "last": e.last_step, "points": len(e.validation)}
    if e.run.status == "RUNNING":
        return warning(0.7, "running", **figures, every=_every(e))
    return fault(0.97, **figures, every=_every(e))


def summary_only(e: Evidence) -> Finding | None:
    """Every loss of the run is a single figure, logged when all was over."""
    curves = [e.run.curves[n] for n in e.run.curves if role_of(n) in ("train_loss", "validation_loss")]
    curves += [c for c in (e.train, e.validation) if len(c) and c not in curves]
    if not curves or any(len(curve) > 1 for curve in curves) or len(e.train) != 1:
        return None
    seconds = curves[-1].seconds[-1] - e.run.started
    more = ("late",) if np.isfinite(seconds) and seconds > 10 else ()
    return fault(
        0.9 if more else 0.7,
        *more,
        names=", ".join(curve.name for curve in curves),
        step=e.train.steps[0],
        seconds=seconds,
    )


def validation_stopped(e: Evidence) -> Finding | None:
    """Validation was regular, then ended long before training did."""
    held = e.validated
    if len(held) < 3 or not e.is_axis_shared or e.run.status == "RUNNING":
        return None
    apart = held.interval
    missing = e.last_step - held.steps[-1]
    if missing < 3 * apart or missing < 0.15 * e.last_step or np.diff(held.steps)[-1] > 2 * apart:
        return None
    return warning(0.75, points=len(held), step=held.steps[-1], last=e.last_step, interval=apart)


def too_few_points(e: Evidence) -> Finding | None:
    """Two to four validation points beside a training curve of many."""
    points = len(e.validated)
    if not 2 <= points < _FEW or len(e.trained) < 20 or not e.is_axis_shared:
        return None
    return warning(
        0.8, points=points, steps=_listed(e.validated), train_points=len(e.trained), last=e.last_step, every=_every(e)
    )


def single_point(e: Evidence) -> Finding | None:
    """One validation point, and nothing that says why."""
    step = _single(e)
    if step is None:
        return None
    return fault(0.5, validation=e.validation.name, step=step, last=e.last_step, every=_every(e))


def _single(e: Evidence) -> float | None:
    """Give the step of the only validation point, where there is but one."""
    return float(e.validation.steps[0]) if len(e.validation) == 1 else None


def _every(e: Evidence) -> int:
    """Propose an interval that gives 20 points."""
    last = e.last_step if np.isfinite(e.last_step) else 0.0
    return max(1, round(last / 20))


def _listed(curve: Curve) -> str:
    return ", ".join(f"{step:g}" for step in curve.steps[:6])


def _points(e: Evidence, names: list[str]) -> int:
    return max((len(e.run.curves[name]) for name in names if name in e.run.curves), default=0)


def _look_alike(e: Evidence) -> Curve | None:
    """Find a metric without a known name that is sparser than training's loss and of the same size."""
    if len(e.trained) < 4:
        return None
    low, high = float(e.trained.values.min()), float(e.trained.values.max())
    for name, curve in e.run.curves.items():
        values = curve.values[curve.is_finite]
        if role_of(name) is not None or name in e.roles.values() or not 2 <= len(values) <= len(e.trained):
            continue
        start, end = ends_of(values)
        # a loss: of the size of training's, falling as it falls, and no accuracy, which rises, nor a clock
        is_near = 0.7 * low <= values.min() and values.max() <= 1.4 * high
        if is_near and end < start and np.ptp(values) > 0.1 * (high - low):
            return curve
    return None
