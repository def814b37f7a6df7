"""The clock of a step: parts within parts, and what collectives take."""

import time

import pytest
import torch

from qwen_core.parallel.clock import Clock
from qwen_core.parallel.traffic import communication, counted


def test_an_inner_part_is_not_counted_in_the_outer_one(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))
    clock = Clock(torch.device("cpu"))
    with clock.part("forward"):  # 0 to 5
        with clock.part("communication"):  # 1 to 2
            pass
        with clock.part("communication"):  # 3 to 4
            pass
    assert clock.take() == {"communication": 2.0, "forward": 3.0}
    assert clock.take() == {}


def test_a_part_that_fails_is_closed():
    clock = Clock(torch.device("cpu"))
    with pytest.raises(ValueError), clock.part("forward"):
        raise ValueError
    with clock.part("backward"):
        pass
    assert clock.take()["forward"] >= 0


def test_collectives_count_only_while_a_step_counts():
    clock = Clock(torch.device("cpu"))
    with communication():
        pass
    with counted(clock), communication():
        pass
    with communication():
        pass
    assert list(clock.take()) == ["communication"]
