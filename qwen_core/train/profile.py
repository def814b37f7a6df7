"""A profile of some steps, on rank 0: a trace for a browser (chrome://tracing, ui.perfetto.dev), and the top operators.

Which steps: `guards.profile_steps` of the recipe, or the next three once a person asks, while the run goes on:
the file PROFILE appears in the stage's state folder (`touch .../PROFILE`; it is deleted when seen), or the worker's
process gets SIGUSR1, where it also writes all threads' stacks beside the trace.

Ray Train runs the loop in a thread that is not the process's main one, where Python sets no signal handlers;
faulthandler does. It writes stacks to a file, and that the file has grown is the sign.

For the loop, on rank 0 only (others take a `None` and skip):

    profiler = Profiler(settings.guards.profile_steps, request_file(plan.state_uri), keep)
    profiler.before(step)
    result = engine.step(...)
    profiler.after(step)                 # calls keep(files, step): upload as artifacts below profiles/, emit an event
    profiler.close()                     # at the end, also of a failure

`Signals` does this, and has the other ranks listen too, so that a stray signal kills none.
"""

from __future__ import annotations

import faulthandler
import functools
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch.profiler import ProfilerActivity, profile

REQUEST_NAME = "PROFILE"
_STEPS_ON_REQUEST = 3
_ROWS = 40
logger = logging.getLogger(__name__)

Keep = Callable[[Mapping[str, Path], int], None]
"""Takes files by the name they shall have, and the first step in them; the files are deleted after it returns."""


def request_file(state_uri: str) -> Path | None:
    """Say where a file that asks for a profile is looked for.

    Args:
        state_uri: The stage's folder for checkpoints.

    Returns:
        The path; `None` where the folder is in an object store, which is not asked at every step.
    """
    return None if "://" in state_uri else Path(state_uri) / REQUEST_NAME


@functools.cache
def listen_to_signal() -> IO[bytes] | None:
    """Have SIGUSR1 write all threads' stacks to a file, from now to the end of the process.

    Without this the signal kills a process; that must not happen to a worker of another rank, nor to one that has just
    finished.

    Returns:
        The file; `None` where there is no such signal.
    """
    if not hasattr(signal, "SIGUSR1"):
        return None
    file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process lives
    faulthandler.register(signal.SIGUSR1, file=file, all_threads=True)
    return file


class Profiler:
    """Records steps when it is time; all faults are logged, none stops training."""

    def __init__(self, steps: Sequence[int], request: Path | None, keep: Keep, *, listen: bool = True) -> None:
        """Wait.

        Args:
            steps: First and last step to record, from 0, or nothing.
            request: Asks for a profile by being there; may be `None`.
            keep: Stores what was recorded.
            listen: Whether SIGUSR1 asks for a profile, too.
        """
        self._planned = (steps[0], steps[1]) if steps else None
        self._request, self._keep = request, keep
        self._running: Any = None
        self._first = self._last = -1
        self._signals = listen_to_signal() if listen else None
        self._seen = 0 if self._signals is None else os.fstat(self._signals.fileno()).st_size

    def before(self, step: int) -> None:
        """Begin to record where it is time; call before each step.

        Args:
            step: Optimiser step, from 0.
        """
        if self._running is not None:
            return
        is_planned = self._planned is not None and self._planned[0] <= step <= self._planned[1]
        if not (is_planned or self._is_asked()):
            return
        self._first = step
        self._last = self._planned[1] if is_planned and self._planned else step + _STEPS_ON_REQUEST - 1
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
        try:
            self._running = profile(activities=activities, record_shapes=True, profile_memory=True)
            self._running.start()
        except Exception as error:  # another profiler is at work, such as an outside one
            self._running, self._planned = None, None
            logger.warning("no profile of step %d: %s", step, error)

    def after(self, step: int) -> None:
        """End the recording where it is time; call after each step.

        Args:
            step: Optimiser step, from 0.
        """
        if self._running is None or step < self._last:
            return
        recorded, self._running, self._planned = self._running, None, None
        try:
            recorded.stop()
            with tempfile.TemporaryDirectory() as folder:
                self._keep(_write(recorded, Path(folder), self._stacks()), self._first)
        except Exception:
            logger.exception("the profile of steps %d to %d was not kept", self._first, step)

    def close(self) -> None:
        """Give up a recording under way."""
        if self._running is not None:
            self._running.stop()
            self._running = None

    def _is_asked(self) -> bool:
        if self._signals is not None and os.fstat(self._signals.fileno()).st_size > self._seen:
            return True
        if self._request is None or not self._request.exists():
            return False
        try:
            self._request.unlink()
        except OSError as error:
            logger.warning("%s asks for a profile, but cannot be deleted (%s): not asked again", self._request, error)
            self._request = None
        return True

    def _stacks(self) -> bytes:
        """Read what SIGUSR1 left."""
        if self._signals is None:
            return b""
        self._signals.seek(self._seen)
        stacks = self._signals.read()
        self._seen += len(stacks)
        return stacks


def _write(recorded: Any, folder: Path, stacks: bytes) -> dict[str, Path]:
    files = {"trace.json.gz": folder / "trace.json.gz", "operators.txt": folder / "operators.txt"}
    recorded.export_chrome_trace(str(files["trace.json.gz"]))
    by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    table = recorded.key_averages().table(sort_by=by, row_limit=_ROWS, max_name_column_width=80)
    files["operators.txt"].write_text(table, encoding="utf-8")
    if stacks:
        files["stacks.txt"] = folder / "stacks.txt"
        files["stacks.txt"].write_bytes(stacks)
    return files
