"""Learning rate and validation points."""

import itertools

import pytest

from qwen_core.train.schedule import learning_rate_at, validation_steps


def test_rate_rises_to_the_peak_and_falls_to_the_floor():
    rates = [learning_rate_at(step, 1.0, 10, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0 and rates[10] == 1.0
    assert rates[-1] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))


@pytest.mark.parametrize(("max_steps", "points"), [(200, 10), (1000, 25), (12, 10), (9, 10), (3, 10), (1, 10)])
def test_validation_is_always_a_curve_from_first_to_last_step(max_steps, points):
    steps = validation_steps(max_steps, points)
    assert steps[0] == 0 and steps[-1] == max_steps and steps == sorted(set(steps))
    assert len(steps) == min(points, max_steps + 1)
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    assert max(gaps) - min(gaps) <= 1
