"""Learning rate and validation points."""

import itertools

import pytest
from pydantic import ValidationError

from qwen_core.config.training import Pretrain
from qwen_core.train.schedule import Schedule, validation_steps

KINDS = ["cosine", "wsd", "linear", "constant"]


@pytest.mark.parametrize("kind", KINDS)
def test_rate_rises_to_the_peak_and_falls_to_the_floor(kind):
    schedule = Schedule(kind, 100, 10, 0.1)
    rates = [schedule.at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0 and rates[10] == 1.0
    assert rates[-1] == pytest.approx(1.0 if kind == "constant" else 0.1)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))


def test_wsd_stays_at_the_top_until_its_last_share():
    """Of 100 steps the last 20 fall, from step 79 to step 99; a quarter of the way down, 1 - sqrt(1/4) is left."""
    schedule = Schedule("wsd", 100, 10, 0.0, 0.2, "sqrt")
    assert [schedule.at(step) for step in (10, 60, 79)] == [1.0, 1.0, 1.0]
    assert schedule.at(84) == pytest.approx(0.5) and schedule.at(99) == 0.0
    assert Schedule("wsd", 100, 10, 0.0, 0.2, "linear").at(84) == pytest.approx(0.75)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_steps", [1, 2, 3])
def test_short_runs_have_a_rate_too(kind, max_steps):
    schedule = Schedule(kind, max_steps, 2, 0.1)
    assert all(0 < schedule.at(step) <= 1 for step in range(max_steps))


def test_a_ramp_that_does_not_fit_is_refused_with_the_remedy():
    with pytest.raises(ValidationError, match="must divide global_batch_size \\(8\\)"):
        Pretrain(batch_ramp_start=3, batch_ramp_steps=5)
    with pytest.raises(ValidationError, match="set both or none"):
        Pretrain(batch_ramp_start=4)


@pytest.mark.parametrize(("max_steps", "points"), [(200, 10), (1000, 25), (12, 10), (9, 10), (3, 10), (1, 10)])
def test_validation_is_always_a_curve_from_first_to_last_step(max_steps, points):
    steps = validation_steps(max_steps, points)
    assert steps[0] == 0 and steps[-1] == max_steps and steps == sorted(set(steps))
    assert len(steps) == min(points, max_steps + 1)
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    assert max(gaps) - min(gaps) <= 1
