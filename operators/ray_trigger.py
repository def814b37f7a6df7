"""`RayJobTrigger`: waits for a Ray job in the triggerer, and writes the job's log into the task's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from operators.ray_hook import RayHook
from qwen_core.errors import RayJobError


class RayJobTrigger(BaseTrigger):
    """Watches one job; a person's kill of the task stops it, a restart of the triggerer does not."""

    def __init__(self, ray_conn_id: str, submission_id: str, poll_seconds: float = 2.0, log_offset: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ray_conn_id = ray_conn_id
        self.submission_id = submission_id
        self.poll_seconds = poll_seconds
        self.log_offset = log_offset

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Tell how to make this trigger again, in plain values."""
        return (
            "operators.ray_trigger.RayJobTrigger",
            {
                "ray_conn_id": self.ray_conn_id,
                "submission_id": self.submission_id,
                "poll_seconds": self.poll_seconds,
                "log_offset": self.log_offset,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the job has ended; yield its last state."""
        hook = RayHook(self.ray_conn_id)
        shown = self.log_offset
        while True:
            try:
                status = await hook.async_status(self.submission_id)
                shown = await self._show_log(hook, shown)
            except RayJobError as error:
                yield TriggerEvent({"state": "UNREACHABLE", "message": str(error), "exit_code": None})
                return
            if status.is_terminal:
                yield TriggerEvent({"state": status.state, "message": status.message, "exit_code": status.exit_code})
                return
            await asyncio.sleep(self.poll_seconds)

    async def on_kill(self) -> None:
        """Stop the job: a person marked the task, or cleared or deleted it."""
        await RayHook(self.ray_conn_id).async_stop(self.submission_id)
        self.log.info("stopped Ray job %s", self.submission_id)

    async def _show_log(self, hook: RayHook, shown: int) -> int:
        """Write the log's new whole lines; return how many characters have been shown."""
        text = await hook.async_logs(self.submission_id)
        fresh = text[shown : text.rfind("\n") + 1]
        for line in fresh.splitlines():
            self.log.info(line)
        return shown + len(fresh)
