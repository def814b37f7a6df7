"""Curves of the machine: few points however long a stage takes, none lost between two attempts."""

import pytest

from qwen_core.tracking.machine import SAMPLE_SECONDS, Curves, Machine


@pytest.mark.parametrize(("hours", "most"), [(0.05, 40), (1, 190), (24, 350), (24 * 30, 520)])
def test_points_lie_further_apart_the_longer_a_run_takes(hours, most):
    points = []
    curves = Curves(lambda figures, step: points.append(step), 0.0)
    now, end = 0.0, hours * 3600
    while now < end:
        curves.add({"cpu_ratio": 0.5}, 1e9 + now)
        # a month has half a million samples: between two points they only add up
        now = max(now + SAMPLE_SECONDS, min(end, curves._due - 1e9))
    assert most / 2 < len(points) < most and points == sorted(points)


def test_a_point_is_the_mean_of_its_samples_with_the_peak():
    points = []
    curves = Curves(lambda figures, step: points.append((step, dict(figures))), 50.0)
    for second, value in ((60.0, 0.5), (61.0, 0.2), (62.0, 0.9)):
        curves.add({"cpu_ratio": value, "process_bytes": 100.0}, second)
    curves.flush(63.0)
    first, last = points
    assert first == (10, {"system/cpu_ratio": 0.5, "system/cpu_peak_ratio": 0.5, "system/process_bytes": 100.0})
    assert last[0] == 13 and last[1]["system/cpu_ratio"] == pytest.approx(0.55)
    assert last[1]["system/cpu_peak_ratio"] == 0.9


def test_a_sample_tells_of_processor_memory_disk_and_network(tmp_path):
    found = Machine(str(tmp_path)).sample()
    assert {"cpu_ratio", "memory_ratio", "process_bytes", "disk_used_ratio"} <= set(found)
    assert all(0 <= value <= 1 for name, value in found.items() if name.endswith("_ratio"))
    assert found["process_bytes"] > 1e6
