"""`RayJobOperator`: runs a command as a Ray job, waits for it (deferred by default), and answers with its result.

execute ─▶ submission id (dag, run, task, try) ─▶ a job of an earlier try still runs? attach : submit
        ─▶ ended within quick_seconds? answer : defer to RayJobTrigger ─▶ execute_complete ─▶ answer
answer: XCom with manifest_uri and mlflow_run_id
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from operators.ray_hook import RayHook, RayJobStatus, fresh_log
from operators.ray_links import MlflowRunLink, RayJobLink, mlflow_links, mlflow_run_of
from operators.ray_trigger import RayJobTrigger
from qwen_core.errors import DivergedError, InputError, RecipeError

_NO_RETRY = {
    RecipeError.exit_code: "The recipe is wrong",
    InputError.exit_code: "The input is wrong",
    DivergedError.exit_code: "The training went astray",
}
_LOG_LINES = 30
_MANIFEST = re.compile(r"^qwen-core manifest: (\S+)$", re.MULTILINE)


class RayJobOperator(BaseOperator):
    """Runs a command on a Ray cluster through its Jobs REST API."""

    template_fields: Sequence[str] = ("entrypoint", "env_vars", "metadata")
    operator_extra_links = (RayJobLink(), MlflowRunLink())
    ui_color = "#d6e9ff"

    def __init__(
        self,
        *,
        entrypoint: str,
        env_vars: dict[str, str] | None = None,
        metadata: dict[str, str] | None = None,
        ray_conn_id: str = RayHook.default_conn_name,
        deferrable: bool = True,
        poll_seconds: float = 2.0,
        quick_seconds: float = 6.0,
        **kwargs: Any,
    ) -> None:
        """Store the arguments.

        Args:
            entrypoint: Shell command that the cluster runs.
            env_vars: Its environment, beside the cluster's own.
            metadata: Shown in Ray's dashboard.
            ray_conn_id: Connection of type `ray`.
            deferrable: Whether to wait in the triggerer instead of a worker.
            poll_seconds: Time between two questions.
            quick_seconds: So long a worker waits before it defers: a stage that is done already, or fails at once,
                is not scheduled twice.
            **kwargs: Airflow's own.
        """
        super().__init__(**kwargs)
        self.entrypoint = entrypoint
        self.env_vars = env_vars
        self.metadata = metadata
        self.ray_conn_id = ray_conn_id
        self.deferrable = deferrable
        self.poll_seconds = poll_seconds
        self.quick_seconds = quick_seconds
        self._submission_id: str | None = None

    def execute(self, context: Any) -> dict[str, str] | None:
        """Submit the job, or attach to the one that runs, and wait.

        Args:
            context: Airflow's.

        Returns:
            The job's answer, where the task waits by itself.
        """
        hook = RayHook(self.ray_conn_id)
        submission_id = self._submission_id = self._find_or_submit(hook, context)
        instance = context["ti"]
        instance.xcom_push(key="submission_id", value=submission_id)
        for key in ("ray_job_url", RayJobLink().xcom_key):  # the second is what the page reads while the task runs
            instance.xcom_push(key=key, value=hook.job_url(submission_id))
        status, shown = self._wait(hook, submission_id)
        if status.is_terminal:
            return self._finish(context, submission_id, status)
        self.defer(
            trigger=RayJobTrigger(self.ray_conn_id, submission_id, self.poll_seconds, self._deadline_seconds(), shown),
            method_name="execute_complete",
            kwargs={"submission_id": submission_id},
        )
        raise AssertionError("defer raises")

    def execute_complete(self, context: Any, event: dict[str, Any], submission_id: str) -> dict[str, str]:
        """Take the result that the trigger brought.

        Args:
            context: Airflow's.
            event: The job's last state.
            submission_id: The job.

        Returns:
            The job's answer.
        """
        is_own = submission_id == f"{submission_stem(context['ti'])}-{context['ti'].try_number}"
        if event["state"] in ("STOPPED", "LOST") and not is_own:
            # The task was cleared, and had attached to its former try's job before that was stopped.
            self.log.info("Ray job %s of an earlier try is %s: submitting anew", submission_id, event["state"])
            return self.execute(context)  # type: ignore[return-value]  # defers again, or answers
        return self._finish(context, submission_id, RayJobStatus(event["state"], event["message"], event["exit_code"]))

    def on_kill(self) -> None:
        """Stop the job, when the task is killed while it waits by itself."""
        if self._submission_id:
            RayHook(self.ray_conn_id).stop(self._submission_id)

    def _wait(self, hook: RayHook, submission_id: str) -> tuple[RayJobStatus, int]:
        """Wait for the job's end, or as long as a deferrable task may; return its state and how much log was shown."""
        until = time.monotonic() + self.quick_seconds if self.deferrable else math.inf
        shown = 0
        while True:
            status = hook.status(submission_id)
            fresh = fresh_log(hook.logs(submission_id), shown, status)
            for line in fresh.splitlines():
                self.log.info(line)
            shown += len(fresh)
            rest = until - time.monotonic()
            if status.is_terminal or rest <= 0:
                return status, shown
            time.sleep(min(rest, self.poll_seconds, 1.0 if self.deferrable else self.poll_seconds))

    def _deadline_seconds(self) -> float | None:
        return time.time() + self.execution_timeout.total_seconds() if self.execution_timeout else None

    def _find_or_submit(self, hook: RayHook, context: Any) -> str:
        """Attach to a running job of this task, of this try or an earlier one; submit where there is none."""
        instance = context["ti"]
        stem = submission_stem(instance)
        tries = range(instance.try_number, 0, -1)
        for number in tries:
            status = hook.status(f"{stem}-{number}")
            if not status.is_terminal or (number == instance.try_number and status.state in ("SUCCEEDED", "FAILED")):
                self.log.info("found Ray job %s-%d (%s)", stem, number, status.state)
                return f"{stem}-{number}"
        submission_id = f"{stem}-{instance.try_number}"
        metadata = {"dag_id": instance.dag_id, "run_id": instance.run_id, "task_id": instance.task_id}
        hook.submit(self.entrypoint, submission_id, self.env_vars or {}, {**metadata, **(self.metadata or {})})
        self.log.info("submitted Ray job %s: %s", submission_id, self.entrypoint)
        return submission_id

    def _finish(self, context: Any, submission_id: str, status: RayJobStatus) -> dict[str, str]:
        """Turn the job's end into the task's."""
        hook = RayHook(self.ray_conn_id)
        log = hook.logs(submission_id) if status.state != "UNREACHABLE" else ""
        run = self._link_mlflow(context, hook, log)
        if status.is_successful:
            result = {"submission_id": submission_id}
            if manifests := _MANIFEST.findall(log):
                result["manifest_uri"] = manifests[-1]
            if run is not None:
                result["mlflow_run_id"] = run
            for key, value in result.items():
                context["ti"].xcom_push(key=key, value=value)
            return result
        tail = "\n".join(log.splitlines()[-_LOG_LINES:])
        text = f"Ray job {submission_id} ended as {status.state} ({status.message or 'no message'}).\n{tail}"
        if status.exit_code in _NO_RETRY:
            raise AirflowFailException(f"{text}\n{_NO_RETRY[status.exit_code]}: no retry can mend it.")
        raise AirflowException(text)

    @staticmethod
    def _link_mlflow(context: Any, hook: RayHook, log: str) -> str | None:
        """Leave the address of the MLflow run; return its id."""
        told, base = mlflow_run_of(log), hook.mlflow_url()
        if told and base:
            for key, value in mlflow_links(base, *told).items():
                context["ti"].xcom_push(key=key, value=value)
        return told[1] if told else None


def submission_stem(instance: Any) -> str:
    """Name the jobs of a task instance: readable, and the same after every restart.

    Args:
        instance: Airflow's task instance.

    Returns:
        The submission id without the try's number.
    """
    told = f"{instance.dag_id}/{instance.run_id}/{instance.task_id}/{getattr(instance, 'map_index', -1)}"
    digest = hashlib.sha256(told.encode()).hexdigest()[:10]
    return f"{instance.dag_id}-{instance.task_id}-{digest}"
