"""`RayJobOperator`: runs a command as a Ray job, waits for it (deferred by default), and answers with its result.

execute ─▶ submission id (dag, run, task, try) ─▶ a job of this task runs? attach : submit
        ─▶ ended within quick_seconds? answer : defer to RayJobTrigger ─▶ execute_complete ─▶ answer
                                     the cluster lost it? submit anew, under the next id ◀──┘
answer: XCom {submission_id, manifest_uri?, mlflow_run_id?, ...the job's result}
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from operators.ray_attach import Answer, find_or_submit, patiently, refuse_twin
from operators.ray_connection import RayAddress
from operators.ray_end import NO_RETRY, UNENDED, failure, unended
from operators.ray_handover import task_state, watch_handover
from operators.ray_hook import RayHook
from operators.ray_job import (
    RayJobRequest,
    RayJobStatus,
    RayTokenError,
    RayUnreachableError,
    manifest_of,
    result_of,
    runtime_env_of,
    submission_id_of,
)
from operators.ray_links import MlflowRunLink, RayJobLink, mlflow_links, mlflow_run_of
from operators.ray_stop import stop_aside
from operators.ray_trigger import RayJobTrigger
from operators.ray_watch import Patience, RayJobWatch
from qwen_core.errors import RayJobError, RecipeError

_KILL_SECONDS = 4.0
"""Airflow kills a worker's process 5 s after it was told to end."""


class RayJobOperator(BaseOperator):
    """Runs a command on a Ray cluster through its Jobs REST API."""

    template_fields: Sequence[str] = (
        "entrypoint",
        "env_vars",
        "runtime_env",
        "working_dir",
        "metadata",
        "ray_conn_id",
        "entrypoint_num_cpus",
        "entrypoint_num_gpus",
        "entrypoint_memory",
        "entrypoint_resources",
        "exclusive_key",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "entrypoint": "bash",
        "runtime_env": "json",
        "env_vars": "json",
        "metadata": "json",
    }
    operator_extra_links = (RayJobLink(), MlflowRunLink())
    ui_color = "#d6e9ff"

    def __init__(
        self,
        *,
        entrypoint: str,
        env_vars: dict[str, str] | None = None,
        runtime_env: dict[str, Any] | None = None,
        working_dir: str | None = None,
        metadata: dict[str, str] | None = None,
        entrypoint_num_cpus: float | str | None = None,
        entrypoint_num_gpus: float | str | None = None,
        entrypoint_memory: int | str | None = None,
        entrypoint_resources: dict[str, float] | None = None,
        entrypoint_label_selector: dict[str, str] | None = None,
        ray_conn_id: str = RayHook.default_conn_name,
        deferrable: bool = True,
        poll_seconds: float = 2.0,
        quick_seconds: float = 10.0,
        unreachable_seconds: float = 300.0,
        max_resubmissions: int = 2,
        skip_on_exit_code: int | Sequence[int] | None = None,
        fail_on_exit_code: int | Sequence[int] = tuple(NO_RETRY),
        exclusive_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Store the arguments.

        Args:
            entrypoint: Shell command that the cluster runs.
            env_vars: Its environment, beside the cluster's own.
            runtime_env: Ray's runtime environment.
            working_dir: URI of a zip archive that the cluster can read; nothing is uploaded.
            metadata: Shown in Ray's dashboard.
            entrypoint_num_cpus: CPUs reserved for the command itself, beside its tasks and actors. A command that
                reserves nothing runs on the head node.
            entrypoint_num_gpus: GPUs reserved for it.
            entrypoint_memory: Bytes reserved for it.
            entrypoint_resources: Custom resources reserved for it.
            entrypoint_label_selector: Labels of the node that it runs on.
            ray_conn_id: Connection of type `ray`.
            deferrable: Whether to wait in the triggerer instead of a worker.
            poll_seconds: Time between two questions; of `quick_seconds`, 0.3 s at most.
            quick_seconds: So long a worker waits before it defers: a stage that is done already, or fails at once,
                is not scheduled twice.
            unreachable_seconds: Ray may be away for so long before the task fails.
            max_resubmissions: A job that the cluster lost (its head was restarted) is submitted anew so often within
                one try.
            skip_on_exit_code: With these the task is skipped, and the job's last lines say why.
            fail_on_exit_code: With these the task is not tried again.
            exclusive_key: At most one job with this key may run; the later one is refused.
            **kwargs: Airflow's own.
        """
        super().__init__(**kwargs)
        self.entrypoint = entrypoint
        self.env_vars = env_vars
        self.runtime_env = runtime_env
        self.working_dir = working_dir
        self.metadata = metadata
        self.entrypoint_num_cpus = entrypoint_num_cpus
        self.entrypoint_num_gpus = entrypoint_num_gpus
        self.entrypoint_memory = entrypoint_memory
        self.entrypoint_resources = entrypoint_resources
        self.entrypoint_label_selector = entrypoint_label_selector
        self.ray_conn_id = ray_conn_id
        self.deferrable = deferrable
        self.poll_seconds = poll_seconds
        self.quick_seconds = quick_seconds
        self.unreachable_seconds = unreachable_seconds
        self.max_resubmissions = max_resubmissions
        self.skip_on_exit_code = skip_on_exit_code
        self.fail_on_exit_code = fail_on_exit_code
        self.exclusive_key = exclusive_key
        self._submission_id: str | None = None
        self._first_resubmission = 0
        self._watch: RayJobWatch | None = None
        self._address: RayAddress | None = None
        self._is_killed = False
        self._handed_over: str | None = None

    def execute(self, context: Any) -> dict[str, Any] | None:
        """Submit the job, or attach to the one that runs, and wait.

        Args:
            context: Airflow's.

        Returns:
            The job's answer, where the task waits by itself.

        Raises:
            AirflowException: The job failed, was stopped or lost; a retry may help.
            AirflowFailException: No retry can help.
            AirflowSkipException: The job ended with `skip_on_exit_code`.
        """
        try:
            request = self._request(context)
            submission_id, resubmission = self._patiently(
                lambda: find_or_submit(
                    RayHook(self.ray_conn_id),
                    context["ti"],
                    request,
                    self.log,
                    most_resubmissions=self.max_resubmissions,
                    first_resubmission=self._first_resubmission,
                )
            )
        except (RayTokenError, RecipeError) as error:
            raise AirflowFailException(str(error)) from None
        except RayJobError as error:
            raise AirflowException(str(error)) from None
        return self._follow(context, submission_id, resubmission)

    def execute_complete(
        self, context: Any, event: dict[str, Any], submission_id: str, resubmission: int = 0
    ) -> dict[str, Any] | None:
        """Take the result that the trigger brought.

        Args:
            context: Airflow's.
            event: The job's last state.
            submission_id: The job.
            resubmission: How often it was submitted anew before.

        Returns:
            The job's answer.

        Raises:
            AirflowException: As `execute`.
        """
        status = RayJobStatus(event["state"], event["message"], event["exit_code"])
        return self._take(context, submission_id, resubmission, status)

    def on_kill(self) -> None:
        """Stop the job, when the task is killed while it waits by itself.

        It comes as a signal, at any moment: asking Airflow for the connection here could wait for itself.
        """
        self._is_killed = True
        if self._watch is not None:
            self._watch.is_cancelled = True
        if self._submission_id:
            try:
                hook = RayHook(self.ray_conn_id, tries=2, address=self._address)
                status = hook.stop(self._submission_id, _KILL_SECONDS)
                self.log.info("Ray job %s was told to stop (%s)", self._submission_id, status.state)
                is_stopped = status.is_terminal
            except RayJobError as error:
                self.log.error("Ray job %s could not be stopped yet: %s", self._submission_id, error)
                is_stopped = False
            if not is_stopped and self._address is not None:
                stop_aside(self._address, self._submission_id)

    def after_defer(self, instance: Any) -> None:
        """Stay until the trigger has taken the job over; the button `RayJobLink` calls it when the worker ends.

        Args:
            instance: Airflow's task instance.
        """
        if self._handed_over is not None:
            submission_id, self._handed_over = self._handed_over, None
            watch_handover(instance, submission_id, self.on_kill, self.log)

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        return patiently(ask, self.unreachable_seconds, self.log, lambda: self._is_killed)

    def _request(self, context: Any) -> RayJobRequest:
        """Compose what Ray is asked for; rendered templates are words, and Ray wants numbers."""
        instance = context["ti"]
        told = {name: str(getattr(instance, name)) for name in ("dag_id", "run_id", "task_id", "try_number")}
        told |= {"map_index": str(getattr(instance, "map_index", -1))}
        if self.exclusive_key:
            told["exclusive_key"] = self.exclusive_key
        memory = _number(self.entrypoint_memory)
        return RayJobRequest(
            self.entrypoint,
            runtime_env_of(self.runtime_env, self.env_vars, self.working_dir),
            {**told, **(self.metadata or {}), "airflow_run_started": _run_started(context)},
            memory_bytes=None if memory is None else int(memory),
            label_selector=self.entrypoint_label_selector,
            num_cpus=_number(self.entrypoint_num_cpus),
            num_gpus=_number(self.entrypoint_num_gpus),
            resources={name: float(size) for name, size in (self.entrypoint_resources or {}).items()} or None,
        )

    def _follow(self, context: Any, submission_id: str, resubmission: int) -> dict[str, Any] | None:
        """Show links and log of a job, and wait for it here or in the triggerer."""
        hook, instance = RayHook(self.ray_conn_id), context["ti"]
        self._address = hook.address
        self._submission_id = submission_id
        if self._is_killed:
            self.on_kill()
            raise AirflowException(f"the task was killed; Ray job {submission_id} was told to stop")
        instance.xcom_push(key="submission_id", value=submission_id)
        for key in ("ray_job_url", RayJobLink().xcom_key):  # the second is what the page reads while the task runs
            instance.xcom_push(key=key, value=hook.job_url(submission_id))
        if exclusive_key := self.exclusive_key:
            try:
                self._patiently(lambda: refuse_twin(hook, submission_id, exclusive_key))
            except RayUnreachableError as error:
                raise AirflowException(str(error)) from None
            except RayJobError as error:
                raise AirflowFailException(str(error)) from None
        deadline = time.time() + self.execution_timeout.total_seconds() if self.execution_timeout else None
        status, position = asyncio.run(self._wait(context, submission_id, deadline))
        if self._is_killed:
            raise AirflowException(f"the task was killed; Ray job {submission_id} was told to stop")
        if status.is_terminal or status.state in UNENDED:
            return self._take(context, submission_id, resubmission, status)
        if task_state(instance) not in ("running", ""):
            self.on_kill()
            raise AirflowException("the task was failed, cleared or deleted meanwhile; its Ray job was told to stop")
        self._handed_over = submission_id
        self.defer(
            # Without a time-out: with one, Airflow would end the trigger without a word to it.
            trigger=RayJobTrigger(
                self.ray_conn_id, submission_id, self.poll_seconds, deadline, position, self.unreachable_seconds
            ),
            method_name="execute_complete",
            kwargs={"submission_id": submission_id, "resubmission": resubmission},
        )
        raise AssertionError("defer raises")

    async def _wait(self, context: Any, submission_id: str, deadline: float | None) -> tuple[RayJobStatus, int]:
        """Wait for the job's end, or as long as a deferrable task may."""
        hook = RayHook(self.ray_conn_id, tries=1, address=self._address)

        async def link(told: tuple[str, str]) -> None:
            self._link_mlflow(context, told)

        # Where a worker waits, Airflow's own alarm comes at the deadline, calls on_kill and fails the task.
        # One that is to defer soon asks often: most jobs that it sees the end of take but a few seconds.
        poll = min(self.poll_seconds, 0.3) if self.deferrable else self.poll_seconds
        patience = Patience(poll, self.unreachable_seconds, deadline if self.deferrable else None)
        self._watch = RayJobWatch(hook, submission_id, self.log, patience, on_mlflow_run=link)
        try:
            status = await self._watch.wait(self.quick_seconds if self.deferrable else math.inf)
            return status, self._watch.position_bytes
        finally:
            await hook.async_close()

    def _take(self, context: Any, submission_id: str, resubmission: int, status: RayJobStatus) -> dict[str, Any] | None:
        """Answer, or go on with another job where this one went without a fault of its own."""
        instance = context["ti"]
        is_own = submission_id == submission_id_of(instance, instance.try_number, resubmission)
        if status.state in ("STOPPED", "LOST") and not is_own:
            # The task was cleared, and had attached to its former try's job before that was stopped.
            self.log.info("Ray job %s of an earlier try is %s: submitting anew", submission_id, status.state)
            return self.execute(context)
        if status.state == "LOST" and resubmission < self.max_resubmissions:
            self._first_resubmission = resubmission + 1
            self.log.warning(
                "Ray lost job %s (its head was restarted?): submitting it anew, %d of at most %d times",
                *(submission_id, self._first_resubmission, self.max_resubmissions),
            )
            return self.execute(context)  # of the subclass: it may compose the command there
        return self._finish(context, submission_id, status)

    def _finish(self, context: Any, submission_id: str, status: RayJobStatus) -> dict[str, Any]:
        """Turn the job's end into the task's."""
        if status.state in UNENDED:
            raise unended(submission_id, status)
        log = self._log_tail(submission_id) if status.state != "LOST" else ""
        if not status.is_successful:
            end = failure(submission_id, status, log, self.skip_on_exit_code, self.fail_on_exit_code)
            if isinstance(end, AirflowSkipException):  # Airflow's own line of it hides the reason in a field
                self.log.info("Skipped: %s", str(end).splitlines()[-1])
            raise end
        try:
            answer = {"submission_id": submission_id, "manifest_uri": manifest_of(log)}
            answer |= {"mlflow_run_id": self._mlflow_run_id(context, log)}
            answer |= result_of(log)
        except RayJobError as error:
            raise AirflowFailException(f"Ray job {submission_id} did its work, but {error}") from None
        answer = {key: value for key, value in answer.items() if value is not None}
        for key in ("submission_id", "manifest_uri", "mlflow_run_id"):
            if key in answer:
                context["ti"].xcom_push(key=key, value=answer[key])
        return answer

    def _log_tail(self, submission_id: str) -> str:
        """Read the end of the job's log, where its answer is; without it the answer is the bare submission id."""
        try:
            return self._patiently(lambda: RayHook(self.ray_conn_id).log_tail(submission_id))
        except RayJobError as error:
            self.log.warning(
                "the end of the log of Ray job %s cannot be read, its answer is lost: %s", submission_id, error
            )
            return ""

    def _mlflow_run_id(self, context: Any, log: str) -> str | None:
        """Find the MLflow run: in the log's end, or where trigger or worker noted it when the job told it."""
        if told := mlflow_run_of(log):
            self._link_mlflow(context, told)
            return told[1]
        kept = context["ti"].xcom_pull(key="mlflow_run_id")
        return kept if isinstance(kept, str) else None

    def _link_mlflow(self, context: Any, told: tuple[str, str]) -> None:
        """Leave the address of the MLflow run."""
        context["ti"].xcom_push(key="mlflow_run_id", value=told[1])
        base = RayHook(self.ray_conn_id, address=self._address).mlflow_url()
        for key, value in mlflow_links(base, *told).items() if base else ():
            context["ti"].xcom_push(key=key, value=value)


def _run_started(context: Any) -> str:
    """Tell one life of a DAG run from the next: a cleared run has a new start."""
    return str(getattr(context["dag_run"], "start_date", None) or "")


def _number(told: float | str | Mapping[str, Any] | None) -> float | None:
    """Read a number of a template."""
    if told is None or told in ("", "None"):
        return None
    try:
        return float(told)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise RecipeError(f"a job's resources must be numbers, not {told!r}") from None
