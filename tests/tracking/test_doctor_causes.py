"""The doctor's causes: each is found where it was planted, and nothing is found in a healthy run."""

import time

import numpy as np
import pytest

from qwen_core.tracking.doctor.causes import CAUSES, EXPLAINS, NAMES, diagnose
from qwen_core.tracking.doctor.evidence import Evidence
from tests.tracking import doctor_runs as runs
from tests.tracking.doctor_runs import Parts, curve, run, trainer

SEEDS = (0, 1, 2)


def _found(run_, **chosen):
    return [one.cause for one in diagnose(Evidence(run_, chosen))]


def _finding(run_, cause):
    return next(one.finding for one in diagnose(Evidence(run_)) if one.cause == cause)


@pytest.mark.parametrize("name", [*NAMES, *runs.PLANTED])
def test_planted_fault_is_found_and_nothing_else(name):
    for seed in SEEDS:
        assert _found(getattr(runs, name)(seed)) == [runs.PLANTED.get(name, name)]


@pytest.mark.parametrize("builder", runs.HEALTHY, ids=lambda one: one.__name__)
def test_nothing_is_found_in_a_healthy_run(builder):
    for seed in range(5):
        assert _found(builder(seed)) == []


def test_what_explains_and_is_explained_are_causes():
    assert len(set(NAMES)) == len(CAUSES) > 40
    assert set(EXPLAINS) <= set(NAMES)
    assert {one for explained in EXPLAINS.values() for one in explained} <= set(NAMES)


def test_diverged_tells_the_step_and_what_came_before():
    finding = _finding(runs.diverged(0), "diverged")
    assert finding.figures["step"] == 725  # the first NaN: point 145, each 5 steps, after step 1
    assert finding.figures["rate"] > 0 and finding.figures["value"] > 8


def test_overfitting_tells_the_checkpoint_to_keep():
    figures = _finding(runs.overfitting(0), "overfitting").figures
    assert 400 <= figures["step"] <= 650 and figures["keep"] == figures["step"] // 100 * 100


def test_sawtooth_tells_the_period_of_the_epoch():
    figures = _finding(runs.epoch_sawtooth(0), "epoch_sawtooth").figures
    assert figures["period"] == pytest.approx(200, rel=0.02) and figures["count"] == pytest.approx(5, rel=0.05)
    assert _finding(runs.epoch_sawtooth_without_epochs(0), "epoch_sawtooth").figures["period"] == pytest.approx(
        100, rel=0.05
    )


def test_jump_tells_its_direction_and_size():
    up = _finding(runs.jump_after_resume(0), "jump_after_resume")
    assert up.more == ("pause", "up") and up.figures["leap"] == pytest.approx(0.4, abs=0.1)
    down = _finding(runs.jump_down_after_a_rewind(0), "jump_after_resume")
    assert down.more == ("rewind", "down") and down.figures["step"] == 450


def test_jump_between_two_runs_is_seen_beside_the_cut_itself():
    later = runs.run_per_resume(0).siblings[1]
    moved = {name: curve(name, c.steps, c.values + 0.5, seconds=c.seconds) for name, c in later.curves.items()}
    cut = runs.run_per_resume(0)
    found = _found(run(*cut.curves.values(), siblings=(run(*moved.values(), run_id="2" * 32),), run_id="1" * 32))
    assert found == ["run_per_resume", "jump_after_resume"]


def test_resumes_whose_steps_begin_anew_are_one_curve_when_the_loss_goes_on():
    parts = Parts(0)
    first, second = parts.steps <= 300, (parts.steps > 300) & (parts.steps <= 600)
    earlier = run(curve("train/loss", parts.steps[first], parts.train[first]), run_id="a" * 32)
    when = runs.START + 2000 + parts.steps[second]
    later = curve("train/loss", parts.steps[second] - 304, parts.train[second], seconds=when)
    finding = _finding(run(later, siblings=(earlier,)), "run_per_resume")
    assert finding.more == ("anew",) and finding.figures["first_run"] == "a" * 32


def test_interval_of_an_epoch_in_a_run_of_one_epoch_is_named():
    made = runs.evaluated_once_at_end(0)
    params = {**made.params, "eval_strategy": "IntervalStrategy.EPOCH", "num_train_epochs": "1"}
    finding = _finding(run(*made.curves.values(), params=params), "evaluated_once_at_end")
    assert finding.more == ("one_epoch",) and finding.figures["value"] == "epoch"


def test_single_point_that_was_measured_late_but_stands_at_the_left_counts_epochs():
    parts = Parts(0)
    point = curve("val_loss", [1], [3.1], seconds=[runs.START + parts.last])
    assert _found(parts.run(point, leave_out=("validation/loss",))) == ["epoch_as_step"]


def test_running_run_that_has_not_reached_its_first_validation_is_only_warned():
    made = trainer(0, last=400).run(leave_out=("eval_loss",), params={"eval_steps": 500}, status="RUNNING")
    assert _finding(made, "interval_longer_than_run").severity == "warning"


def test_named_metric_wins_over_recognition():
    made = runs.unexpected_name(0)
    assert _found(made) == ["unexpected_name"]
    assert _found(made, validation_loss="figures/B") == []


def test_timestamps_in_milliseconds_and_ticks_of_a_clock_are_no_steps():
    parts = Parts(0)
    when = np.round(1000 * (runs.START + 3.0 * parts.held_steps))
    dated = curve("validation/loss", when, parts.held, seconds=when / 1000)
    assert _found(parts.run(dated, leave_out=("validation/loss",))) == ["time_as_step"]
    passed = np.cumsum(parts.random.integers(3, 40, 60))
    ticking = curve("loss", passed, 3 + 6 / np.arange(1, 61), seconds=runs.START + passed)
    assert "time_as_step" in _found(run(ticking))


def test_gap_tells_whether_training_went_on():
    assert _finding(runs.gap(0), "gap").more == ("went_on",)
    parts = Parts(0)
    keep = (parts.steps < 420) | (parts.steps > 580)
    seconds = runs.START + 5.0 * np.arange(np.count_nonzero(keep))
    leapt = curve("train/loss", parts.steps[keep], parts.train[keep], seconds=seconds)
    assert _finding(parts.run(leapt, leave_out=("train/loss",)), "gap").more == ("skipped",)


def test_events_of_the_guards_are_evidence():
    parts = Parts(0)
    events = [curve("events/loss_spike", [200, 410, 800], [1, 2, 3]), curve("events/profile", [5], [1])]
    finding = _finding(parts.run(*events), "loss_spike")
    assert finding.severity == "warning" and finding.figures["event_steps"] == "200, 410, 800"


def test_closing_figure_under_the_name_of_the_curve_is_recognised():
    parts = Parts(0)
    steps, values = np.append(parts.steps, 0), np.append(parts.train, parts.train[-1])
    closed = curve("train/loss", steps, values, seconds=runs.START + np.append(parts.steps, 2000))
    finding = _finding(parts.run(closed, leave_out=("train/loss",)), "steps_go_backwards")
    assert finding.more == ("summary",)


def test_scaled_loss_is_suspected_without_the_setting_and_known_from_the_first_loss():
    guessed = trainer(0)
    guessed.train = guessed.train * 4
    del guessed.params["gradient_accumulation_steps"]
    finding = _finding(guessed.run(), "accumulation_scaled_loss")
    assert finding.severity == "warning" and finding.figures["ratio"] == pytest.approx(4, rel=0.05)
    alone = trainer(0)
    alone.train = alone.train * 4
    found = _found(alone.run(leave_out=("eval_loss",), params={"gradient_accumulation_steps": 4}))
    assert found == ["no_validation", "accumulation_scaled_loss"]


def test_run_without_any_loss_has_no_finding_and_no_role():
    evidence = Evidence(run(curve("accuracy", [1, 2, 3], [0.1, 0.2, 0.3])))
    assert diagnose(evidence) == [] and evidence.roles == {}


@pytest.mark.parametrize("values", [[], [np.nan], [1.0], [np.inf, np.nan], [1.0, 1.0], [3.0, 2.0, 1.0]])
def test_hardly_any_points_break_no_cause(values):
    steps = np.arange(len(values))
    for names in (("train/loss", "validation/loss"), ("loss",), ("validation/loss",)):
        made = [curve(name, steps, values) for name in names if len(values)]
        diagnose(Evidence(run(*made)))


def test_a_hundred_thousand_points_take_seconds_at_most():
    parts = Parts(0, last=100_000, every=1, points=50)
    made = parts.run(runs.epochs(parts, 4))
    started = time.process_time()
    assert diagnose(Evidence(made)) == []
    assert time.process_time() - started < 5
