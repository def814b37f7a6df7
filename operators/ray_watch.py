"""Waiting for a job: its state, its log, its MLflow run, its time; the same in a worker and in the triggerer.

ask ─▶ answers? show what is new of the log ─▶ ended? return : time over? stop it, return : pause ─▶ ask
    └▶ away? say so once, ask on with growing pauses; after `unreachable_seconds` return UNREACHABLE
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from operators.ray_hook import RayHook, pauses
from operators.ray_job import RayJobStatus, RayTokenError, RayUnreachableError
from operators.ray_log import RayJobLog
from qwen_core.errors import RayJobError

_LINES_AT_ONCE = 200
_LOG_TRIES = 3
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Patience:
    """How long a job is waited for.

    Attributes:
        poll_seconds: Time between two questions.
        unreachable_seconds: Ray may be away for so long.
        deadline_seconds: Since the epoch; then the job is stopped. Airflow's own time-out of a deferred task would
            end the trigger without a word to it, and the job would go on.
    """

    poll_seconds: float = 2.0
    unreachable_seconds: float = 300.0
    deadline_seconds: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the job's time is over."""
        return self.deadline_seconds is not None and time.time() > self.deadline_seconds


class RayJobWatch:
    """Watches one job."""

    def __init__(
        self,
        hook: RayHook,
        submission_id: str,
        log: Any,
        patience: Patience,
        position_bytes: int = 0,
        on_mlflow_run: Callable[[tuple[str, str]], Awaitable[None]] | None = None,
        on_position: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """Store the arguments.

        Args:
            hook: Asks Ray; one try a call, for the watch has patience of its own.
            submission_id: The job.
            log: Of the task.
            patience: How long it waits.
            position_bytes: Bytes of the job's log that were shown before.
            on_mlflow_run: Gets experiment and run as soon as the job has told them.
            on_position: Gets the bytes shown, after each reading.
        """
        self._hook, self._submission_id, self._log, self._patience = hook, submission_id, log, patience
        self._job_log = RayJobLog(hook, submission_id, position_bytes)
        self._on_mlflow_run, self._on_position = on_mlflow_run, on_position
        self._away_since: float | None = None
        self._pauses: Iterator[float] = iter(pauses())
        self.is_cancelled = False

    @property
    def position_bytes(self) -> int:
        """Bytes of the job's log that were shown."""
        return self._job_log.position_bytes

    async def wait(self, seconds: float = math.inf) -> RayJobStatus:
        """Wait for the job's end.

        Args:
            seconds: At most so long.

        Returns:
            The last state; it is not terminal where the time was too short. TIMEOUT where the job's own time was
            over, UNREACHABLE where Ray was away for too long, REFUSED where it refuses the token.
        """
        until, status = time.monotonic() + seconds, RayJobStatus("PENDING")
        while not self.is_cancelled:
            try:
                status = await self._step()
                pause = self._patience.poll_seconds
            except RayTokenError as error:
                return RayJobStatus("REFUSED", str(error))
            except RayUnreachableError as error:
                pause = self._note_absence(error)
                if self._is_absent_too_long():
                    return RayJobStatus("UNREACHABLE", str(error))
            if status.is_terminal or status.state == "TIMEOUT":
                return status
            rest = until - time.monotonic()
            if rest <= 0:
                return status
            await asyncio.sleep(min(pause, rest))
        return status

    async def _step(self) -> RayJobStatus:
        """Ask once and show what is new."""
        status = await self._hook.async_status(self._submission_id)
        self._note_presence()
        await self._show(status)
        if not status.is_terminal and self._patience.is_over:
            return await self._stop_in_time()
        return status

    async def _stop_in_time(self) -> RayJobStatus:
        status = await self._hook.async_stop(self._submission_id, _STOP_SECONDS)
        if status.is_successful:
            return status
        await self._show(status)
        end = "is stopped" if status.is_terminal else f"was told to stop and is still {status.state}"
        return RayJobStatus("TIMEOUT", f"the task's execution_timeout is over; the job {end}")

    async def _show(self, status: RayJobStatus) -> None:
        """Show the log; a log that cannot be read now is no trouble while the job runs."""
        for attempt in range(_LOG_TRIES if status.is_terminal else 1):
            try:
                lines = await self._job_log.read(status)
                break
            except RayUnreachableError:
                if attempt == _LOG_TRIES - 1:
                    self._log.warning("the end of the job's log cannot be read: its node is gone, or does not answer")
                if status.is_terminal and attempt < _LOG_TRIES - 1:
                    await asyncio.sleep(next(self._pauses))
        else:
            return
        for start in range(0, len(lines), _LINES_AT_ONCE):
            for line in lines[start : start + _LINES_AT_ONCE]:
                self._log.info(line)
            await asyncio.sleep(0)  # the triggerer has other triggers
        if self._job_log.mlflow_run and self._on_mlflow_run:
            tell, self._on_mlflow_run = self._on_mlflow_run, None
            await tell(self._job_log.mlflow_run)
        if lines and self._on_position:
            await self._on_position(self.position_bytes)

    def _note_absence(self, error: RayJobError) -> float:
        """Say once that Ray is away; return the pause until the next question."""
        if self._away_since is None:
            self._away_since = time.monotonic()
            self._log.warning(
                "%s. The job is not lost by that: asking on for up to %.0f s", error, self._patience.unreachable_seconds
            )
        return max(next(self._pauses), self._patience.poll_seconds)

    def _note_presence(self) -> None:
        if self._away_since is not None:
            self._log.info("Ray answers again, after %.0f s", time.monotonic() - self._away_since)
            self._away_since, self._pauses = None, iter(pauses())

    def _is_absent_too_long(self) -> bool:
        assert self._away_since is not None
        return time.monotonic() - self._away_since >= self._patience.unreachable_seconds
