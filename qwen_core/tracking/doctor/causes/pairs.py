"""Causes that show when the two losses are laid side by side."""

from __future__ import annotations

import numpy as np

from qwen_core.tracking.doctor.evidence import Evidence
from qwen_core.tracking.doctor.finding import Finding, fault, note, warning
from qwen_core.tracking.doctor.record import Floats
from qwen_core.tracking.doctor.signs import NORMAL, ends_of, noise_of, smooth

_DROPOUT = ("dropout", "attention_dropout", "hidden_dropout", "hidden_dropout_prob", "resid_pdrop", "embd_pdrop")
_PASSES = ("gradient_accumulation_steps", "accumulate_grad_batches", "grad_accum_steps", "gradient_accumulation")
_PLAUSIBLE = 0.1  # nats for each token: below it a language model has seen the answer


def overfitting(e: Evidence) -> Finding | None:
    """The validation loss has passed its lowest point, and training's goes on falling."""
    held = e.validated
    if len(held) < 4 or not e.is_axis_shared:
        return None
    values = smooth(held.values, 3) if len(held) >= 8 else held.values
    low, lowest = int(np.argmin(values)), float(np.min(values))
    rise = float(min(values[-1], np.median(values[-3:]))) - lowest
    if len(values) - low < 3 or rise < max(3 * _tail_noise(held.values), 0.02 * abs(lowest)):
        return None
    then, now = np.interp([held.steps[low], held.steps[-1]], e.trained.steps, e.course)
    if not now < then - min(e.noise, 0.02 * abs(then)):
        return None
    every = e.setting("checkpoint_every_steps", "save_steps")
    keep = float(np.floor(held.steps[low] / every[1]) * every[1]) if every and every[1] > 1 else held.steps[low]
    return warning(
        0.9,
        *(("checkpoint",) if every and every[1] > 1 and keep > 0 else ()),
        name=held.name,
        step=held.steps[low],
        low=lowest,
        end=values[-1],
        last=held.steps[-1],
        then=then,
        now=now,
        train=e.train.name,
        keep=keep,
        setting=every[0] if every else "",
        every=every[1] if every else np.nan,
    )


def validation_equals_training(e: Evidence) -> Finding | None:
    """The two losses are the same figures."""
    steps, mine, theirs = np.intersect1d(e.trained.steps, e.validated.steps, return_indices=True)
    if len(steps) < 3:
        return None
    train, held = e.trained.values[mine], e.validated.values[theirs]
    is_same = np.abs(train - held) <= 1e-6 * np.maximum(1e-12, np.abs(train))
    if np.mean(is_same) < 0.8 or np.ptp(held) == 0:
        return None
    return fault(0.95, validation=e.validation.name, train=e.train.name, same=int(is_same.sum()), points=len(steps))


def accumulation_scaled_loss(e: Evidence) -> Finding | None:
    """The training loss is the validation loss times the number of accumulated passes."""
    known = e.setting(*_PASSES)
    passes = known[1] if known else np.nan
    ratio, spread = _ratio(e)
    first = float(e.trained.values[0]) if len(e.trained) else np.nan
    figures = {"train": e.train.name, "validation": e.validation.name, "ratio": ratio, "spread": spread}
    figures |= {"setting": known[0] if known else "", "passes": passes, "first": first, "chance": e.chance}
    if np.isfinite(ratio) and spread < 0.12:
        if passes > 1 and (abs(ratio / passes - 1) < 0.15 or abs(ratio * passes - 1) < 0.15):
            return fault(0.95, "ratio", "known", **figures)
        if known is None and spread < 0.06 and any(abs(ratio / power - 1) < 0.04 for power in (2, 4, 8, 16, 32, 64)):
            return warning(0.5, "ratio", "guessed", **figures)
    if not len(e.validated) and passes > 1 and abs(first / (passes * e.chance) - 1) < 0.08:
        return fault(0.75, "chance", "known", **figures)
    return None


def training_loss_averaged(e: Evidence) -> Finding | None:
    """The validation loss lies below training's only because training's is an average over the past interval."""
    gap, steps, held = _gap_below(e)
    if gap is None or e.interval <= 0:
        return None
    moved = np.interp(steps, e.trained.steps - e.interval / 2, e.course)
    left = float(np.median(moved - held))
    fall = float(np.median(np.abs(np.diff(e.course)))) / 2
    if left > 0.35 * gap or fall < 0.5 * gap:
        return None
    return note(0.75, validation=e.validation.name, gap=gap, left=left, interval=e.interval, half=e.interval / 2)


def validation_below_training(e: Evidence) -> Finding | None:
    """The validation loss lies below training's throughout."""
    gap, _, held = _gap_below(e)
    if gap is None:
        return None
    dropout = e.setting(*_DROPOUT)
    more = ("dropout",) if dropout and dropout[1] > 0 else ()
    return warning(
        0.8,
        *more,
        validation=e.validation.name,
        gap=gap,
        share=gap / float(np.median(np.abs(held))),
        points=len(held),
        setting=dropout[0] if dropout else "",
        dropout=dropout[1] if dropout else np.nan,
    )


def implausibly_low_loss(e: Evidence) -> Finding | None:
    """A language model's loss falls to nearly nothing: it sees what it has to foretell."""
    curve = e.validated if len(e.validated) > 1 else e.trained
    if len(curve) < 4:
        return None
    start, end = ends_of(curve.values)
    trained = e.levels[0] if len(e.trained) else start
    if not (max(start, trained) > 3 and 0 <= end < _PLAUSIBLE):
        return None
    if curve.name == e.train.name:
        return warning(0.6, "memorised", name=curve.name, start=start, end=end, step=curve.steps[-1])
    return fault(0.9, name=curve.name, start=start, end=end, step=curve.steps[-1])


def _tail_noise(values: Floats) -> float:
    return noise_of(values[-max(6, 2 * len(values) // 3) :]) if len(values) > 6 else 0.0


def _ratio(e: Evidence) -> tuple[float, float]:
    """Compare the losses: median ratio of training to validation, and how much it varies, relative to itself."""
    _, train, held = e.together
    if len(held) < 3 or not e.is_axis_shared or e.is_preference or np.any(held <= 0):
        return np.nan, np.nan
    ratios = train / held
    middle = float(np.median(ratios))
    return middle, float(NORMAL * np.median(np.abs(ratios - middle))) / max(1e-12, abs(middle))


def _gap_below(e: Evidence) -> tuple[float | None, Floats, Floats]:
    """Measure by how much the validation lies below training, where it does so nearly always."""
    steps, train, held = e.together
    inside = steps > e.trained.steps[0] if len(e.trained) else np.zeros(0, bool)
    steps, train, held = steps[inside], train[inside], held[inside]
    if len(held) < 4 or not e.is_axis_shared or e.is_preference:
        return None, steps, held
    gap = float(np.median(train - held))
    if gap < 0.03 * abs(float(np.median(held))) or np.mean(train > held) < 0.85 or gap < 0.5 * e.noise:
        return None, steps, held
    return gap, steps, held
