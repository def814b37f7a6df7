"""The causes: small functions that look at the evidence and answer with a finding, or with None.

A cause's name is its function's. Its texts stand under that name in `texts/en.yaml` and `texts/zh.yaml`.
"""

from __future__ import annotations

from collections.abc import Callable

from qwen_core.tracking.doctor.causes import axis, broken, flat, noise, pairs, points
from qwen_core.tracking.doctor.evidence import Evidence
from qwen_core.tracking.doctor.finding import Diagnosis, Finding

CAUSES: tuple[Callable[[Evidence], Finding | None], ...] = (
    points.no_validation,
    points.validation_without_loss,
    points.unexpected_name,
    points.validation_in_another_run,
    points.evaluated_once_at_end,
    points.evaluated_once_at_start,
    points.interval_longer_than_run,
    points.summary_only,
    points.validation_stopped,
    points.too_few_points,
    points.single_point,
    axis.constant_step,
    axis.epoch_as_step,
    axis.other_step_unit,
    axis.time_as_step,
    axis.steps_go_backwards,
    axis.duplicate_steps,
    axis.gap,
    axis.run_per_resume,
    axis.renamed_metric,
    broken.nan_filtered,
    broken.diverged,
    broken.loss_spike,
    broken.jump_after_resume,
    broken.loss_scale_collapsed,
    broken.stalled,
    broken.stopped_early,
    broken.guard_events,
    flat.learning_rate_zero,
    flat.schedule_ended_early,
    flat.constant_loss,
    flat.learning_rate_too_small,
    flat.not_learning,
    flat.plateau,
    flat.gradient_always_clipped,
    flat.no_warmup,
    pairs.overfitting,
    pairs.validation_equals_training,
    pairs.accumulation_scaled_loss,
    pairs.training_loss_averaged,
    pairs.validation_below_training,
    pairs.implausibly_low_loss,
    noise.epoch_sawtooth,
    noise.epoch_staircase,
    noise.noisy_validation,
    noise.noisy_training,
)

NAMES = tuple(cause.__name__ for cause in CAUSES)

_SHAPES = ("loss_spike", "jump_after_resume", "plateau", "overfitting", "noisy_training", "epoch_sawtooth", "gap")
_DOT = ("evaluated_once_at_end", "evaluated_once_at_start", "single_point", "too_few_points")
_PAIRS = ("training_loss_averaged", "validation_below_training", "overfitting")

EXPLAINS: dict[str, tuple[str, ...]] = {
    "summary_only": (*_DOT, "no_validation", "constant_step", "interval_longer_than_run"),
    "interval_longer_than_run": (*_DOT, "no_validation"),
    "epoch_as_step": (*_DOT, "other_step_unit", "validation_stopped"),
    "other_step_unit": ("too_few_points", "validation_stopped"),
    "constant_step": (*_DOT, *_SHAPES, "epoch_as_step", "duplicate_steps", "noisy_validation"),
    "time_as_step": (*_DOT, *_SHAPES, "other_step_unit", "validation_stopped", "stopped_early"),
    "validation_in_another_run": (*_DOT, "no_validation", "interval_longer_than_run"),
    "unexpected_name": ("no_validation", "validation_without_loss"),
    "validation_without_loss": ("no_validation",),
    "evaluated_once_at_end": ("single_point",),
    "evaluated_once_at_start": ("single_point",),
    "renamed_metric": ("validation_stopped", "too_few_points", "unexpected_name"),
    "run_per_resume": ("evaluated_once_at_end", "evaluated_once_at_start", "single_point", "too_few_points"),
    "nan_filtered": (*_DOT, "constant_loss", "implausibly_low_loss", "validation_stopped"),
    "diverged": (*_SHAPES, "nan_filtered", "stopped_early", "validation_below_training", "validation_stopped"),
    "learning_rate_zero": ("constant_loss", "not_learning", "learning_rate_too_small", "schedule_ended_early"),
    "learning_rate_too_small": ("not_learning",),
    "schedule_ended_early": ("plateau",),
    "accumulation_scaled_loss": (*_PAIRS, "no_warmup"),
    "validation_equals_training": _PAIRS,
    "training_loss_averaged": ("validation_below_training",),
    "implausibly_low_loss": _PAIRS,
    "epoch_sawtooth": ("noisy_training", "plateau", "jump_after_resume", "loss_spike"),
    "epoch_staircase": ("noisy_training", "plateau", "jump_after_resume"),
    "steps_go_backwards": (*_SHAPES, "stopped_early", "duplicate_steps", "no_warmup"),
    "jump_after_resume": ("stalled",),
    "constant_loss": ("not_learning", *_PAIRS),
    "noisy_validation": ("too_few_points", "overfitting"),
    "duplicate_steps": ("noisy_training", "noisy_validation"),
}
"""What a cause explains away: found together, the second is a consequence of the first."""


def diagnose(evidence: Evidence) -> list[Diagnosis]:
    """Ask every cause.

    Args:
        evidence: The run.

    Returns:
        What was found, worst and surest first; consequences of what was found are left out.
    """
    found = {cause.__name__: finding for cause in CAUSES if (finding := cause(evidence)) is not None}
    explained = {consequence for name in found for consequence in EXPLAINS.get(name, ())}
    return sorted((Diagnosis(n, f) for n, f in found.items() if n not in explained), key=lambda one: one.rank)
