"""How fast a run is and where its time goes, averaged between two points of the log.

    train/tokens_per_second    over all workers, while training: pauses for validation and checkpoints do not count
    train/mfu                  model FLOPs utilisation (Chowdhery et al., 2022, arXiv 2204.02311, appendix B): FLOPs
                               that the model needs for these tokens, of what the devices could do at most;
                               recomputed activations do not count
    train/seconds_per_step     wall time of a step
    train/tokens               through the model since the run's first step, over all workers
    train/epochs               passes over the data so far
    train/padding_ratio        share of the positions that hold no token, of this worker's batches
    time/<part>_ratio          share of a step's time: data, forward, backward, optimiser, communication, rest
    time/<pause>_seconds       what a pause took since the last point: validation, checkpoint
    system/...                 memory of this worker: resident, and on a GPU allocated and reserved at the peak

MLflow's page makes a section of charts of each part before the slash.

For the loop, on every worker (rank 0 logs):

    meter = Meter(sequences=len(task), flops_per_token=..., peak_flops=peak_flops(device_name, precision), devices=...)
    with meter.part("data"):
        batches = [task.batch(indices) for indices in mine]
    result = engine.step(batches, ...)
    meter.step(batches, result, sequences=global_batch_size, data_step=guards.data_step(step), step=step)
    with meter.pause("validation"): ...
    if due: figures |= meter.figures()                     # and starts anew
"""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

if TYPE_CHECKING:
    from qwen_core.parallel.engine import Batch, Step

PEAK_FLOPS = (
    # the first that the device's name contains; bf16 or fp16 without sparsity, from the makers' data sheets
    ("B200", 2250e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("H800", 989e12),
    ("H20", 148e12),
    ("A100", 312e12),
    ("A800", 312e12),
    ("A10G", 70e12),
    ("A10", 125e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("RTX 4090", 165e12),
    ("RTX 3090", 71e12),
    ("V100", 125e12),
    ("T4", 65e12),
    ("MI300X", 1307e12),
    ("MI250X", 383e12),
)
"""Highest rate of matrix products of a device, FLOP/s, by a part of its name."""

PARTS = ("data", "forward", "backward", "optimiser", "communication")
PAUSES = ("start", "between", "validation", "checkpoint", "rollback", "export")
"""What may take longer than a step."""


def peak_flops(device_name: str, precision: str) -> float | None:
    """Look up the highest rate of a device.

    Args:
        device_name: As `torch.cuda.get_device_name` tells it.
        precision: `bf16`, `fp16` or `fp32`.

    Returns:
        FLOP/s; `None` where it is not known, and for fp32, whose rate depends on whether TF32 is allowed.
    """
    if precision not in ("bf16", "fp16"):
        return None
    return next((peak for name, peak in PEAK_FLOPS if name.lower() in device_name.lower()), None)


class Meter:
    """Adds up times and counts of one worker between two points of the log."""

    def __init__(
        self,
        *,
        sequences: int,
        devices: int = 1,
        flops_per_token: float | None = None,
        peak_flops: float | None = None,
        tokens: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Start the clock.

        Args:
            sequences: Of one epoch.
            devices: That train together.
            flops_per_token: Forward and backward, of the whole model.
            peak_flops: Of one device, FLOP/s; no MFU without it.
            tokens: Through the model before this start.
            clock: Seconds; for tests.
        """
        self.tokens = tokens
        self.clock = clock
        self.gpu = current_gpu()
        # What this worker is doing, since when, and how long its last steps took: for `Watch`, from its thread.
        self.phase = "start"
        self.next_step = 0
        self.progress_at = clock()
        self.step_seconds: collections.deque[float] = collections.deque(maxlen=64)
        self._sequences_per_epoch, self._devices = max(1, sequences), devices
        self._flops = flops_per_token, peak_flops
        self._epochs = 0.0
        self._reset()

    def _reset(self) -> None:
        self._since = self.clock()
        self._steps = self._step_tokens = 0
        self._positions = self._filled = 0
        self._parts: dict[str, float] = {}
        self._pauses: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part of a step; `data` is the first, after which the step is on.

        Args:
            name: One of `PARTS`.

        Yields:
            Nothing.
        """
        with self._timed(name, self._parts):
            yield
        self.phase = "step"  # until a step ends: the engine times its own parts

    @contextmanager
    def pause(self, name: str) -> Iterator[None]:
        """Time what is no training, such as `validation` or `checkpoint`.

        Args:
            name: Of the pause.

        Yields:
            Nothing.
        """
        self.progress_at = self.clock()
        try:
            with self._timed(name, self._pauses):
                yield
        finally:
            self.progress_at, self.phase = self.clock(), "between"

    @contextmanager
    def _timed(self, name: str, into: dict[str, float]) -> Iterator[None]:
        self.phase, started = name, self.clock()
        try:
            yield
        finally:
            into[name] = into.get(name, 0.0) + self.clock() - started

    def step(
        self, batches: Sequence[Batch], result: Step, *, sequences: int, data_step: int, step: int | None = None
    ) -> None:
        """Count a step that was taken.

        Args:
            batches: This worker's micro-batches.
            result: What the engine returned.
            sequences: In the step, over all workers.
            data_step: Step whose data was read, from 0; see `Guards.data_step`.
            step: Optimiser step, from 0; the one after the last by default.
        """
        now = self.clock()
        self.step_seconds.append(now - self.progress_at)
        self.next_step = (self.next_step if step is None else step) + 1
        self.progress_at, self.phase = now, "between"
        self._steps += 1
        self._step_tokens += result.tokens
        self.tokens += result.tokens
        self._epochs = (data_step + 1) * sequences / self._sequences_per_epoch
        for batch in batches:
            self._positions += batch.input_ids.numel()
            self._filled += batch.tokens
        for name, seconds in result.seconds.items():
            self._parts[name] = self._parts.get(name, 0.0) + seconds

    def figures(self) -> dict[str, float]:
        """Give the figures since the last call and start anew.

        Returns:
            Values by name; without those of speed where no step was counted.
        """
        seconds = max(1e-9, self.clock() - self._since - sum(self._pauses.values()))
        figures = {"train/tokens": float(self.tokens), "train/epochs": self._epochs}
        figures |= {f"time/{name}_seconds": spent for name, spent in self._pauses.items()}
        if self._steps:
            speed = self._step_tokens / seconds
            figures["train/tokens_per_second"] = speed
            figures["train/seconds_per_step"] = seconds / self._steps
            figures["train/padding_ratio"] = 1 - self._filled / max(1, self._positions)
            figures |= self._mfu(speed)
            figures |= self._ratios(seconds)
        self._reset()
        return figures | memory_figures()

    def _mfu(self, speed: float) -> dict[str, float]:
        flops_per_token, peak = self._flops
        if flops_per_token is None or peak is None:
            return {}
        return {"train/mfu": speed * flops_per_token / (peak * self._devices)}

    def _ratios(self, seconds: float) -> dict[str, float]:
        """Split the time; what nobody timed is the rest, and parts that overlap leave none."""
        whole = max(seconds, sum(self._parts.values()))
        ratios = {f"time/{name}_ratio": spent / whole for name, spent in self._parts.items()}
        return ratios | {"time/rest_ratio": max(0.0, 1 - sum(ratios.values()))}


def current_gpu() -> int | None:
    """Number of the GPU that this thread uses; none where CUDA was not started."""
    is_started = torch.cuda.is_available() and torch.cuda.is_initialized()
    return torch.cuda.current_device() if is_started else None


def memory_figures() -> dict[str, float]:
    """Measure this worker's memory; peaks on a GPU are those since the last call.

    Returns:
        Bytes by name.
    """
    figures = {"system/resident_bytes": float(psutil.Process().memory_info().rss)}
    if current_gpu() is not None:
        figures["system/gpu_allocated_peak_bytes"] = float(torch.cuda.max_memory_allocated())
        figures["system/gpu_reserved_peak_bytes"] = float(torch.cuda.max_memory_reserved())
        torch.cuda.reset_peak_memory_stats()
    return figures


def memory_used_ratios(device: int | None = None) -> dict[str, float]:
    """Say how full the memories are that this worker lives in.

    Args:
        device: Number of this worker's GPU, if it has one; a thread does not know it by itself.

    Returns:
        0 to 1 by memory: `machine`, which is the container where one has a limit, and `gpu`.
    """
    machine = psutil.virtual_memory()
    ratios = {"machine": 1 - machine.available / machine.total}
    limit, used = _cgroup()
    if limit is not None and 0 < limit < machine.total:
        ratios["machine"] = used / limit
    if device is not None:
        free, total = torch.cuda.mem_get_info(device)
        # What torch has reserved but not allocated is free for the model
        spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        ratios["gpu"] = 1 - (free + spare) / total
    return ratios


def _cgroup() -> tuple[int | None, int]:
    """Read a container's memory limit and use, caches that can be dropped left out; version 2, then version 1."""
    if sys.platform != "linux":
        return None, 0
    root = Path("/sys/fs/cgroup")
    for limit, used, stat, cache in (
        (root / "memory.max", root / "memory.current", root / "memory.stat", "inactive_file"),
        (
            root / "memory/memory.limit_in_bytes",
            root / "memory/memory.usage_in_bytes",
            root / "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        try:
            most = limit.read_text().strip()
            lines = dict(line.split() for line in stat.read_text().splitlines())
            return (None, 0) if most == "max" else (int(most), int(used.read_text()) - int(lines.get(cache, 0)))
        except (OSError, ValueError):
            continue
    return None, 0
