"""`StopOrphanedJobsOperator`: stops Ray jobs whose task is not waiting for them any more.

A person's kill reaches a job through its worker or its trigger. Where neither lives at that moment (the triggerer is
down while a DAG run is deleted), nobody is left to stop the job. A DAG that runs this operator now and then does.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator

from operators.ray_hook import RayHook
from operators.ray_job import RUN_STARTED, RayJobStatus

_WAITED_FOR = ("running", "deferred", "queued", "scheduled", "up_for_retry", "restarting", "up_for_reschedule")
_MIN_AGE_SECONDS = 120.0


class StopOrphanedJobsOperator(BaseOperator):
    """Stops the running Ray jobs of this Airflow's tasks that have ended otherwise, or are gone."""

    def __init__(
        self,
        *,
        ray_conn_id: str = RayHook.default_conn_name,
        dag_ids: list[str] | None = None,
        min_age_seconds: float = _MIN_AGE_SECONDS,
        **kwargs: Any,
    ) -> None:
        """Store the arguments.

        Args:
            ray_conn_id: Connection of type `ray`.
            dag_ids: Jobs of these DAGs alone; `None` for all. Name them where several Airflows share one cluster: of
                another Airflow's DAG runs this one knows nothing, and would stop their jobs.
            min_age_seconds: Younger jobs are left alone.
            **kwargs: Airflow's own.
        """
        super().__init__(**kwargs)
        self.ray_conn_id = ray_conn_id
        self.dag_ids = dag_ids
        self.min_age_seconds = min_age_seconds

    def execute(self, context: Any) -> list[str]:
        """Look and stop.

        Args:
            context: Airflow's.

        Returns:
            Submission ids of what was stopped.
        """
        hook = RayHook(self.ray_conn_id)
        suspects = [job for job in hook.jobs() if self._is_suspect(job)]
        states = _states(context["ti"], suspects)
        stopped = []
        for job in suspects:
            state = states.get(_place(job["metadata"]))
            if state in _WAITED_FOR:
                continue
            self.log.info("Ray job %s is waited for by nobody (its task is %s)", job["submission_id"], state or "gone")
            hook.stop(job["submission_id"])
            stopped.append(job["submission_id"])
        return stopped

    def _is_suspect(self, job: Mapping[str, Any]) -> bool:
        told = job.get("metadata") or {}
        return (
            RUN_STARTED in told
            and {"dag_id", "run_id", "task_id"} <= set(told)
            and (self.dag_ids is None or told["dag_id"] in self.dag_ids)
            and not RayJobStatus.of(job).is_terminal
            and _age_seconds(job) >= self.min_age_seconds
        )


def _states(instance: Any, jobs: list[dict[str, Any]]) -> dict[tuple[str, str, str], str]:
    """Ask Airflow for the states of the jobs' tasks, once a DAG."""
    runs: dict[str, set[str]] = defaultdict(set)
    for job in jobs:
        runs[job["metadata"]["dag_id"]].add(job["metadata"]["run_id"])
    found = {}
    for dag_id, run_ids in runs.items():
        for run_id, tasks in instance.get_task_states(dag_id=dag_id, run_ids=sorted(run_ids)).items():
            for task, state in tasks.items():
                found[dag_id, run_id, task] = str(getattr(state, "value", state))
    return found


def _place(told: Mapping[str, str]) -> tuple[str, str, str]:
    index = told.get("map_index", "-1")
    return told["dag_id"], told["run_id"], told["task_id"] if index == "-1" else f"{told['task_id']}_{index}"


def _age_seconds(job: Mapping[str, Any]) -> float:
    return time.time() - (job.get("start_time") or 0) / 1000
