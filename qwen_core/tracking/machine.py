"""How busy the machine was while a stage ran: `system/...` curves, few points however long it takes.

    every 5 s a sample ─▶ mean and peak of some samples ─▶ MetricLog (a journal, a thread; never in the stage's way)

The time between points grows with the attempt, to a fiftieth of it: 50 points in the first four minutes, 340 after a
day, some 500 after a month. Steps are seconds since the stage first began, so a rerun goes on behind.

    system/cpu_ratio, system/cpu_peak_ratio          of all cores
    system/memory_ratio, system/memory_peak_ratio    of the machine, or of the container where it has a limit
    system/process_bytes                             this process and its children, resident
    system/disk_used_ratio                           of the disk that holds the records
    system/disk_read_bytes_per_second, ..._written_..., system/network_received_..., ..._sent_...
    system/gpu<number>/busy_ratio, memory_ratio, watts, celsius    where NVIDIA's library (nvidia-ml-py) finds one

It looks at the machine of the stage's driver; training tells its workers' memory itself (`train.meter`).
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import psutil

from qwen_core.tracking.leftover import keep_waiting
from qwen_core.tracking.spool import MetricLog

if TYPE_CHECKING:
    from qwen_core.tracking.stage_run import StageRun

SAMPLE_SECONDS = 5.0
_SHARE = 50  # of the time that the run has taken, between two points
_PEAKS = ("cpu_ratio", "memory_ratio")
_CLOSE_SECONDS = 5.0
_CGROUP = Path("/sys/fs/cgroup")
logger = logging.getLogger(__name__)

Figures = dict[str, float]


class Machine:
    """Samples of the machine; rates are those since the last one."""

    def __init__(self, place: str = "/") -> None:
        """Take the first readings of what only differences tell.

        Args:
            place: A folder on the disk to look at.
        """
        self._place = place
        self._process = psutil.Process()
        psutil.cpu_percent()
        self._counters, self._at = _counters(), time.monotonic()
        self._gpus = _gpus()

    def sample(self) -> Figures:
        """Measure.

        Returns:
            Values by name, without the prefix `system/`.
        """
        figures = {"cpu_ratio": psutil.cpu_percent() / 100, "memory_ratio": _memory_ratio()}
        with contextlib.suppress(psutil.Error, OSError):
            figures["process_bytes"] = float(_resident(self._process))
        with contextlib.suppress(OSError):
            figures["disk_used_ratio"] = psutil.disk_usage(self._place).percent / 100
        counters, now = _counters(), time.monotonic()
        seconds = max(1e-3, now - self._at)
        figures |= {
            f"{name}_bytes_per_second": max(0.0, (value - self._counters.get(name, value)) / seconds)
            for name, value in counters.items()
        }
        self._counters, self._at = counters, now
        return figures | (self._gpus() if self._gpus else {})


class Curves:
    """Turns samples into points: their mean, and of some the peak, at times that lie further and further apart."""

    def __init__(self, log: Callable[[Mapping[str, float], int], None], started_seconds: float) -> None:
        """Start empty.

        Args:
            log: Takes the figures of a point and its step.
            started_seconds: When the run first began, as Unix time.
        """
        self._log, self._started = log, started_seconds
        self._sums: Figures = {}
        self._peaks: Figures = {}
        self._counts: dict[str, int] = {}
        self._due = self._since = 0.0

    def add(self, figures: Mapping[str, float], now: float) -> None:
        """Take a sample; a point is logged where one is due.

        Args:
            figures: Of the machine.
            now: Unix time.
        """
        self._since = self._since or now
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
            if name in _PEAKS:
                self._peaks[name] = max(self._peaks.get(name, 0.0), value)
        if now >= self._due:
            self.flush(now)

    def flush(self, now: float) -> None:
        """Log a point of the samples since the last one.

        Args:
            now: Unix time.
        """
        if not self._sums:
            return
        means = {f"system/{name}": total / self._counts[name] for name, total in self._sums.items()}
        peaks = {f"system/{name.replace('_ratio', '_peak_ratio')}": value for name, value in self._peaks.items()}
        self._log(means | peaks, max(0, int(now - self._started)))
        self._sums, self._peaks, self._counts = {}, {}, {}
        self._due = now + max(SAMPLE_SECONDS, (now - self._since) / _SHARE)


class MachineWatch:
    """Samples in a thread while a stage runs."""

    def __init__(self, run: StageRun, spool_uri: str) -> None:
        """Start nothing yet.

        Args:
            run: Of the stage.
            spool_uri: Where records wait; the journal lies there, if it is local.
        """
        place = tempfile.gettempdir() if "://" in spool_uri else spool_uri
        self._run, self._folder = run, Path(place) / "journals"
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="machine-watch", daemon=True)

    def __enter__(self) -> MachineWatch:
        self._log = MetricLog(self._run, self._folder)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join(2 * SAMPLE_SECONDS)
        # a server that is away is waited for once, when the stage's other records are sent
        is_away = self._run.reach().is_away
        if not self._log.close(0.1 if is_away else _CLOSE_SECONDS):
            keep_waiting(self._run, self._folder)

    def _work(self) -> None:
        started = time.time()
        curves = Curves(self._log.log, self._run.started_seconds)
        try:
            machine = Machine(str(self._folder))
            while not self._closing.wait(SAMPLE_SECONDS if time.time() - started > 1 else 0.5):
                curves.add(machine.sample(), time.time())
                if self._run.reach().is_away:
                    self._log.put("records", self._send)
            curves.add(machine.sample(), time.time())
            curves.flush(time.time())
        except Exception as error:  # a machine that cannot be measured is no fault of the stage
            logger.warning("the machine is no longer measured: %s", error)

    def _send(self) -> None:
        if not self._run.send_waiting():
            raise ConnectionError("MLflow does not answer")


def _memory_ratio() -> float:
    machine = psutil.virtual_memory()
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        lines = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        used = int((_CGROUP / "memory.current").read_text()) - int(lines.get("inactive_file", 0))
        if 0 < limit < machine.total:
            return used / limit
    except (OSError, ValueError):
        pass  # no container with a limit
    return float(1 - machine.available / machine.total)


def _resident(process: psutil.Process) -> int:
    total = process.memory_info().rss
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += child.memory_info().rss
    return int(total)


def _counters() -> Figures:
    found: Figures = {}
    with contextlib.suppress(Exception):  # not every system counts
        disk = psutil.disk_io_counters()
        if disk is not None:
            found |= {"disk_read": float(disk.read_bytes), "disk_written": float(disk.write_bytes)}
    with contextlib.suppress(Exception):
        network = psutil.net_io_counters()
        found |= {"network_received": float(network.bytes_recv), "network_sent": float(network.bytes_sent)}
    return found


def _gpus() -> Callable[[], Figures] | None:
    """Find the GPUs that NVIDIA's library knows; none where it is not installed or finds no driver."""
    try:
        import pynvml  # type: ignore[import-not-found,unused-ignore]

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except Exception:
        return None
    if not handles:
        return None

    def sample() -> Figures:
        figures: Figures = {}
        for number, handle in enumerate(handles):
            for name, value in _gpu(pynvml, handle).items():
                figures[f"gpu{number}/{name}"] = value
        return figures

    return sample


def _gpu(nvml: Any, handle: Any) -> Figures:
    figures: Figures = {}
    with contextlib.suppress(Exception):
        figures["busy_ratio"] = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        figures["memory_ratio"] = memory.used / memory.total
    with contextlib.suppress(Exception):  # not every card tells
        figures["watts"] = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
        figures["celsius"] = float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    return figures
