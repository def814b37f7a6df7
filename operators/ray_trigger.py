"""`RayJobTrigger`: waits for a Ray job in the triggerer, and writes the job's log into the task's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import BaseTrigger, TriggerEvent

from operators.ray_hook import RayHook, RayJobStatus, fresh_log
from operators.ray_links import mlflow_links, mlflow_run_of
from qwen_core.errors import RayJobError

_MIN_SECONDS = 4.0
"""A trigger lasts so long at least. Airflow 3.3 fails a task that comes back from its trigger before the scheduler has
taken note that the deferring worker ended (apache/airflow issues 71580 and 72716)."""


class RayJobTrigger(BaseTrigger):
    """Watches one job; a person's kill of the task stops it, a restart of the triggerer does not."""

    def __init__(
        self,
        ray_conn_id: str,
        submission_id: str,
        poll_seconds: float = 2.0,
        deadline_seconds: float | None = None,
        shown: int = 0,
    ) -> None:
        """Store the arguments.

        Args:
            ray_conn_id: Connection of type `ray`.
            submission_id: The job.
            poll_seconds: Time between two questions.
            deadline_seconds: Seconds since the epoch after which the job is stopped. Airflow's own time-out of a
                deferred task ends the trigger without a word to it, and the job would go on.
            shown: Characters of the job's log that the task has shown already.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.ray_conn_id = ray_conn_id
        self.submission_id = submission_id
        self.poll_seconds = poll_seconds
        self.deadline_seconds = deadline_seconds
        self.shown = shown

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Tell how to make this trigger again, in plain values."""
        return (
            "operators.ray_trigger.RayJobTrigger",
            {
                "ray_conn_id": self.ray_conn_id,
                "submission_id": self.submission_id,
                "poll_seconds": self.poll_seconds,
                "deadline_seconds": self.deadline_seconds,
                "shown": self.shown,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the job has ended; yield its last state."""
        hook, earliest = RayHook(self.ray_conn_id), time.monotonic() + _MIN_SECONDS
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
        """Stop the job: a person marked the task, or cleared or deleted it."""
        hook = RayHook(self.ray_conn_id)
        await hook.async_stop(self.submission_id)
        await hook.async_close()
        self.log.info("stopped Ray job %s", self.submission_id)

    async def _watch(self, hook: RayHook) -> RayJobStatus:
        """Show the job's log as it grows, until the job has ended or its time is over."""
        shown, is_linked = self.shown, False
        while True:
            status = await hook.async_status(self.submission_id)
            text = await hook.async_logs(self.submission_id)
            fresh = fresh_log(text, shown, status)
            for line in fresh.splitlines():
                self.log.info(line)
            shown += len(fresh)
            is_linked = is_linked or await self._link_mlflow(hook, text)
            if status.is_terminal:
                return status
            if self.deadline_seconds is not None and time.time() > self.deadline_seconds:
                await hook.async_stop(self.submission_id)
                return RayJobStatus("STOPPED", "the task's execution_timeout is over")
            await asyncio.sleep(self.poll_seconds)

    async def _link_mlflow(self, hook: RayHook, log: str) -> bool:
        """Leave the MLflow run's address for the task's page, as soon as the job has told it."""
        told, instance = mlflow_run_of(log), self.task_instance
        if told is None or instance is None:
            return False
        base = await hook.async_mlflow_url()
        if base is None:
            return True
        place = {"dag_id": instance.dag_id, "task_id": instance.task_id, "run_id": instance.run_id}
        for key, value in mlflow_links(base, *told).items():
            await XCom.aset(key, value, map_index=getattr(instance, "map_index", -1), **place)
        return True
