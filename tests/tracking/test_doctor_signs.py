"""Measures of a curve, and the names of metrics."""

import numpy as np
import pytest

from qwen_core.tracking.doctor import signs
from qwen_core.tracking.doctor.names import is_held_out, role_of, roles_of, tool_of
from qwen_core.tracking.doctor.record import make_curve
from tests.tracking.doctor_runs import curve, run


def test_noise_is_measured_beside_any_trend():
    values = 9 - 0.01 * np.arange(4000) + np.random.default_rng(0).normal(0, 0.2, 4000)
    assert signs.noise_of(values) == pytest.approx(0.2, rel=0.1)
    assert signs.noise_of(np.array([3.0, 2.0])) == 0.0
    assert signs.noise_of(np.linspace(3, 1, 50)) == pytest.approx(0, abs=1e-12)


def test_running_median_keeps_length_and_level():
    values = np.array([1.0, 1, 9, 1, 1, 1, 1])
    assert signs.smooth(values, 3).tolist() == [1, 1, 1, 1, 1, 1, 1]
    assert signs.smooth(np.array([2.0]), 5).tolist() == [2.0]
    assert len(signs.smooth(np.arange(10.0), 99)) == 10


def test_slope_passes_over_wild_points():
    steps = np.arange(0.0, 100, 2)
    values = 5 - 0.5 * steps
    values[7] = 1e6
    assert signs.slope_of(steps, values) == pytest.approx(-0.5)


def test_spikes_are_places_of_their_tops():
    values = np.full(60, 3.0) + np.random.default_rng(0).normal(0, 0.01, 60)
    values[20:23], values[40] = [4, 6, 5], 9
    assert signs.spikes_of(values, signs.course_of(values)).tolist() == [21, 40]
    short = np.array([1.0, 5, 1])
    assert signs.spikes_of(short, signs.course_of(short)).tolist() == []


def test_gap_is_what_is_long_for_its_curve():
    assert signs.gaps_of(np.append(np.arange(20.0), np.arange(50.0, 70))) == [(19.0, 50.0)]
    assert signs.gaps_of(np.arange(50.0)) == []


def test_pattern_explains_the_deviation_that_it_makes():
    phase = (np.arange(600) / 60) % 1.0
    random = np.random.default_rng(0).normal(0, 1, 600)
    assert signs.folded(np.sin(2 * np.pi * phase), phase) > 0.95
    assert signs.folded(random, phase) < 0.05
    assert signs.folded(np.zeros(600), phase) == 0.0


def test_leap_is_measured_beyond_the_trend():
    values = 9 - 0.05 * np.arange(60) + np.random.default_rng(0).normal(0, 0.01, 60)
    assert abs(signs.shifts_at(values, [30])[0][0]) < 0.05
    values[30:] += 0.5
    (leap, sigma), near_the_end = signs.shifts_at(values, [30, 1])
    assert leap == pytest.approx(0.5, abs=0.05) and sigma > 20
    assert near_the_end == (0.0, 0.0)


@pytest.mark.parametrize(
    "name, role",
    [
        *((name, "train_loss") for name in ("train/loss", "loss", "train_loss", "train_loss_step", "lm loss")),
        *((name, "train_loss") for name in ("Loss/train", "trainLoss", "training.nll", "train/cross_entropy")),
        *((name, "validation_loss") for name in ("validation/loss", "eval_loss", "val_loss", "val/loss_epoch")),
        *(
            (name, "validation_loss")
            for name in ("lm loss validation", "Loss/valid", "dev-loss", "evalLoss", "test_loss")
        ),
        *((name, "validation_loss") for name in ("held_out/nll", "eval_code_loss", "validation/loss/en")),
        *((name, "learning_rate") for name in ("train/learning_rate", "lr", "lr-AdamW", "learning-rate")),
        *((name, "grad_norm") for name in ("grad_norm", "train/grad_norm", "gradient_norm", "grad_2.0_norm_total")),
        *((name, "loss_scale") for name in ("loss_scale", "train/loss_scale", "grad scale")),
        *((name, "epoch") for name in ("epoch", "train/epochs")),
        *((name, "tokens") for name in ("train/tokens", "num_input_tokens_seen")),
        *((name, None) for name in ("last_validation_loss", "first_train_loss", "best_val_loss", "loss_weight")),
        *((name, None) for name in ("system/gpu_loss", "events/loss_spike", "train/z_loss", "eval_accuracy", "closs")),
        *((name, None) for name in ("validation/bits_per_byte", "time/validation_seconds", "flossing")),
    ],
)
def test_metric_is_recognised_by_its_words(name, role):
    assert role_of(name) == role


def test_held_out_is_told_from_training():
    assert all(is_held_out(name) for name in ("eval_accuracy", "validation/bits_per_byte", "val_f1"))
    assert not any(is_held_out(name) for name in ("train/loss", "events/x_val", "value", "time/validation_seconds"))


def test_curve_wins_over_the_summary_and_the_plain_name_over_the_odd():
    curves = [
        curve("train_loss", [100], [3.0]),
        curve("loss", [1, 2, 3], [5, 4, 3]),
        curve("eval_code_loss", [1, 2], [4, 3]),
        curve("eval_loss", [1, 2], [4, 3]),
        curve("test_loss", [1, 2, 3], [4, 3, 2]),
    ]
    named = {one.name: one for one in curves}
    assert roles_of(named, {}) == {"train_loss": "loss", "validation_loss": "eval_loss"}
    assert roles_of(named, {"validation_loss": "eval_code_loss"})["validation_loss"] == "eval_code_loss"


@pytest.mark.parametrize(
    "tool, about",
    [
        ("ours", {"tags": {"qwen_core.stage": "sft"}}),
        ("trainer", {"params": {"per_device_train_batch_size": 8, "logging_steps": 5}}),
        ("trl", {"params": {"per_device_train_batch_size": 8, "loss_type": "sigmoid"}}),
        ("llamafactory", {"params": {"per_device_train_batch_size": 8, "finetuning_type": "lora"}}),
        ("keras", {"tags": {"mlflow.autologging": "keras"}}),
        ("lightning", {"params": {"max_epochs": 3}}),
        ("megatron", {"params": {"eval_interval": 1000, "eval_iters": 10}}),
        ("any", {}),
    ],
)
def test_tool_is_recognised_by_settings_and_tags(tool, about):
    assert tool_of(run(**about)) == tool


def test_infinity_stands_again_where_a_database_held_the_largest_number():
    made = make_curve("loss", [(1, 1.7976931348623157e308, 5.0), (0, -1.7976931348623157e308, 4.0), (2, 1.5, 6.0)])
    assert made.values.tolist() == [-np.inf, np.inf, 1.5] and made.steps.tolist() == [0, 1, 2]


def test_of_a_step_that_was_logged_twice_the_last_point_counts():
    made = make_curve("loss", [(1, 5.0, 1.0), (2, 4.0, 2.0), (1, 3.0, 3.0), (3, np.nan, 4.0)])
    assert made.by_step().steps.tolist() == [1, 2] and made.by_step().values.tolist() == [3.0, 4.0]
