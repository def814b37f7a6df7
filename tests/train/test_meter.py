"""The meter: a clock that is set by hand, and figures worked out by hand."""

import pytest
import torch

from qwen_core.parallel.engine import Batch, Step
from qwen_core.train.meter import Meter, memory_used_ratios, peak_flops


class Clock:
    """Seconds that only pass where a test lets them."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def batch(positions: int, tokens: int) -> Batch:
    ids = torch.zeros(1, positions, dtype=torch.int64)
    return Batch(ids, ids, None, float(tokens), tokens)


def step_of(tokens: int, **seconds: float) -> Step:
    return Step(1.0, {}, tokens, 1.0, True, seconds=seconds)


def test_speed_split_and_utilisation_are_those_worked_by_hand():
    """Two steps of 10 s and 800 tokens: 80 tokens/s; at 2 FLOPs a token, of 4 devices with 100 FLOP/s, 0.4."""
    clock = Clock()
    meter = Meter(sequences=10, devices=4, flops_per_token=2.0, peak_flops=100.0, tokens=5, clock=clock)
    for step in range(2):
        with meter.part("data"):
            clock.now += 1
        clock.now += 9
        batches = [batch(400, 300), batch(400, 500)]
        meter.step(batches, step_of(800, forward=2.0, backward=4.0, optimiser=1.0), sequences=5, data_step=step)
    figures = meter.figures()
    assert figures["train/tokens_per_second"] == pytest.approx(80)
    assert figures["train/mfu"] == pytest.approx(80 * 2 / 400)
    assert figures["train/seconds_per_step"] == pytest.approx(10)
    assert figures["train/tokens"] == 1605 and figures["train/epochs"] == pytest.approx(1.0)
    assert figures["train/padding_ratio"] == pytest.approx(0)
    split = {name: figures[f"time/{name}_ratio"] for name in ("data", "forward", "backward", "optimiser", "rest")}
    assert split == pytest.approx({"data": 0.1, "forward": 0.2, "backward": 0.4, "optimiser": 0.1, "rest": 0.2})
    assert figures["system/resident_bytes"] > 10_000_000


def test_padding_is_the_share_of_positions_without_a_token():
    meter = Meter(sequences=10, clock=Clock())
    meter.step([batch(100, 60), batch(100, 90)], step_of(150), sequences=2, data_step=0)
    assert meter.figures()["train/padding_ratio"] == pytest.approx(0.25)


def test_pauses_are_no_training_time():
    clock = Clock()
    meter = Meter(sequences=10, clock=clock)
    with meter.pause("validation"):
        assert meter.phase == "validation"
        clock.now += 100
    clock.now += 2
    meter.step([batch(8, 8)], step_of(8), sequences=1, data_step=0)
    figures = meter.figures()
    assert figures["train/tokens_per_second"] == pytest.approx(4) and figures["time/validation_seconds"] == 100
    assert list(meter.step_seconds) == [2]


def test_each_point_starts_anew_and_one_without_steps_tells_no_speed():
    clock = Clock()
    meter = Meter(sequences=10, clock=clock)
    meter.step([batch(8, 8)], step_of(8), sequences=1, data_step=0)
    meter.figures()
    with meter.pause("validation"):
        clock.now += 1
    figures = meter.figures()
    assert "train/tokens_per_second" not in figures and figures["train/tokens"] == 8


def test_parts_that_overlap_leave_no_rest():
    clock = Clock()
    meter = Meter(sequences=10, clock=clock)
    clock.now = 1
    meter.step([batch(8, 8)], step_of(8, backward=0.9, communication=0.6), sequences=1, data_step=0)
    figures = meter.figures()
    assert figures["time/backward_ratio"] == pytest.approx(0.6) and figures["time/rest_ratio"] == 0
    assert "train/mfu" not in figures


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA H200", "fp16", 989e12),
        ("NVIDIA H20", "bf16", 148e12),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("NVIDIA GeForce RTX 4090", "bf16", 165e12),
        ("NVIDIA H100 80GB HBM3", "fp32", None),
        ("a device that nobody knows", "bf16", None),
    ],
)
def test_peak_is_known_by_the_device_and_precision(name, precision, peak):
    assert peak_flops(name, precision) == peak


def test_memory_is_a_share():
    assert 0 < memory_used_ratios()["machine"] < 1


@pytest.mark.gpu
def test_memory_of_a_gpu_is_measured():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    from qwen_core.train.meter import current_gpu, memory_figures

    held = torch.zeros(2**20, device="cuda")
    figures = memory_figures()
    assert (
        figures["system/gpu_allocated_peak_bytes"] >= held.nbytes and 0 < memory_used_ratios(current_gpu())["gpu"] < 1
    )
    assert peak_flops(torch.cuda.get_device_name(), "bf16")
