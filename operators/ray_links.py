"""Buttons on a task's page: the Ray job, and the MLflow run; both are there while the job runs."""

from __future__ import annotations

import re
from typing import Any

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

_MLFLOW_RUN = re.compile(r"^qwen-core mlflow run: (?P<experiment>\S+)/(?P<run>\S+)$", re.MULTILINE)


def mlflow_run_of(log: str) -> tuple[str, str] | None:
    """Find the MLflow run that a job told.

    Args:
        log: The job's log, or lines of it.

    Returns:
        Experiment id and run id, or `None` where none was told.
    """
    found = _MLFLOW_RUN.search(log)
    return (found["experiment"], found["run"]) if found else None


def mlflow_links(base_url: str, experiment_id: str, run_id: str) -> dict[str, str]:
    """Name the XComs that lead to an MLflow run.

    Args:
        base_url: MLflow's pages.
        experiment_id: The experiment.
        run_id: The run.

    Returns:
        Values by key; one key is ours, the other is what the task's page reads while the task runs.
    """
    url = f"{base_url}/#/experiments/{experiment_id}/runs/{run_id}"
    return dict.fromkeys(("mlflow_run_url", MlflowRunLink().xcom_key), url)


class RayJobLink(BaseOperatorLink):
    """To the job's page in Ray's dashboard."""

    name = "Ray job"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Read the address that the operator left.

        Airflow asks for it in the worker as well, after the task has ended or deferred: the one place where a worker
        can still do something for a task that defers.
        """
        if (after_defer := getattr(operator, "after_defer", None)) is not None:
            after_defer(ti_key)
        return str(XCom.get_value(key="ray_job_url", ti_key=ti_key) or "")


class MlflowRunLink(BaseOperatorLink):
    """To the stage's run in MLflow."""

    name = "MLflow run"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Read the address that the operator left."""
        return str(XCom.get_value(key="mlflow_run_url", ti_key=ti_key) or "")
