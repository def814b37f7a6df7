"""`RayJobTrigger`: waits for a Ray job in the triggerer, and writes the job's log into the task's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import BaseTrigger, TriggerEvent

from operators.ray_handover import POSITION_KEY
from operators.ray_hook import RayHook
from operators.ray_job import RayJobStatus, RayUnreachableError
from operators.ray_links import mlflow_links
from operators.ray_stop import stop_aside
from operators.ray_watch import Patience, RayJobWatch
from qwen_core.errors import RayJobError

_MIN_SECONDS = 4.0
"""A trigger lasts so long at least. Airflow 3.3 fails a task that comes back from its trigger before the scheduler has
taken note that the deferring worker ended (apache/airflow issues 71580 and 72716)."""
_POSITION_SECONDS = 10.0
_KILL_SECONDS = 12.0


class RayJobTrigger(BaseTrigger):
    """Watches one job; a person's kill of the task stops it, a restart of the triggerer does not."""

    def __init__(
        self,
        ray_conn_id: str,
        submission_id: str,
        poll_seconds: float = 2.0,
        deadline_seconds: float | None = None,
        position_bytes: int = 0,
        unreachable_seconds: float = 300.0,
    ) -> None:
        """Store the arguments.

        Args:
            ray_conn_id: Connection of type `ray`.
            submission_id: The job.
            poll_seconds: Time between two questions.
            deadline_seconds: Seconds since the epoch after which the job is stopped.
            position_bytes: Bytes of the job's log that the task has shown already.
            unreachable_seconds: Ray may be away for so long.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.ray_conn_id = ray_conn_id
        self.submission_id = submission_id
        self.poll_seconds = poll_seconds
        self.deadline_seconds = deadline_seconds
        self.position_bytes = position_bytes
        self.unreachable_seconds = unreachable_seconds
        self._told_position = 0.0

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Tell how to make this trigger again, in plain values."""
        names = ("ray_conn_id", "submission_id", "poll_seconds", "deadline_seconds", "position_bytes")
        arguments = {name: getattr(self, name) for name in (*names, "unreachable_seconds")}
        return "operators.ray_trigger.RayJobTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the job has ended; yield its last state."""
        hook, earliest = RayHook(self.ray_conn_id, tries=1), time.monotonic() + _MIN_SECONDS
        try:
            status = await self._watch(hook)
        except RayJobError as error:
            status = RayJobStatus("UNREACHABLE", str(error))
        finally:
            await hook.async_close()
        if (rest := earliest - time.monotonic()) > 0:
            await asyncio.sleep(rest)
        yield TriggerEvent({"state": status.state, "message": status.message, "exit_code": status.exit_code})

    async def on_kill(self) -> None:
        """Stop the job: a person marked, cleared or deleted the task or its DAG run, or the run's time was over."""
        hook = RayHook(self.ray_conn_id)
        try:
            address = await hook.async_address()
            status = await self._stop(hook)
        except RayJobError as error:  # there is no such connection, or Ray refuses its token
            self.log.error("Ray job %s could not be stopped, and may go on: %s", self.submission_id, error)
            return
        finally:
            await hook.async_close()
        if status.is_terminal:
            self.log.info("Ray job %s is stopped (%s)", self.submission_id, status.state)
        else:
            self.log.warning("Ray job %s was told to stop and is still %s", self.submission_id, status.state)
            stop_aside(address, self.submission_id)

    async def _stop(self, hook: RayHook) -> RayJobStatus:
        try:
            return await hook.async_stop(self.submission_id, _KILL_SECONDS)
        except RayUnreachableError as error:
            return RayJobStatus("UNREACHABLE", str(error))

    async def _watch(self, hook: RayHook) -> RayJobStatus:
        position = max(self.position_bytes, await self._kept_position())
        await self._keep_position(position)  # the worker waits for it
        watch = RayJobWatch(
            hook,
            self.submission_id,
            self.log,
            Patience(self.poll_seconds, self.unreachable_seconds, self.deadline_seconds),
            position,
            on_mlflow_run=lambda told: self._link_mlflow(hook, told),
            on_position=self._keep_position,
        )
        status = await watch.wait()
        if status.state == "LOST":  # seen twice: a head that starts may not know its jobs at once
            await asyncio.sleep(self.poll_seconds)
            status = await watch.wait()
        return status

    async def _kept_position(self) -> int:
        """Read how far an earlier triggerer came."""
        if self.task_instance is None:
            return 0
        try:
            kept = await XCom.aget_one(key=POSITION_KEY, **self._place())
        except Exception:
            return 0
        if not isinstance(kept, dict) or kept.get("submission_id") != self.submission_id:
            return 0
        self.log.info(
            "the triggerer was restarted: the log goes on from byte %s; lines of the last %.0f s may come twice",
            f"{kept['bytes']:,}",
            _POSITION_SECONDS,
        )
        return int(kept["bytes"])

    async def _keep_position(self, position_bytes: int) -> None:
        """Note how far the log was shown, now and then."""
        if self.task_instance is None or time.monotonic() - self._told_position < _POSITION_SECONDS:
            return
        self._told_position = time.monotonic()
        kept = {"submission_id": self.submission_id, "bytes": position_bytes}
        await self._push(POSITION_KEY, kept)

    async def _link_mlflow(self, hook: RayHook, told: tuple[str, str]) -> None:
        """Leave the MLflow run's address for the task's page, as soon as the job has told it."""
        if self.task_instance is None:
            return
        await self._push("mlflow_run_id", told[1])
        base = (await hook.async_address()).mlflow_url
        for key, value in mlflow_links(base, *told).items() if base else ():
            await self._push(key, value)

    async def _push(self, key: str, value: Any) -> None:
        try:
            await XCom.aset(key, value, **self._place())
        except Exception as error:  # a link is not worth a job
            self.log.warning("XCom '%s' could not be kept (%s)", key, type(error).__name__)

    def _place(self) -> dict[str, Any]:
        instance = self.task_instance
        assert instance is not None
        place = {name: getattr(instance, name) for name in ("dag_id", "task_id", "run_id")}
        return {**place, "map_index": getattr(instance, "map_index", -1)}
