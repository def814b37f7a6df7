"""Buttons on a task's page: the Ray job, and the MLflow run; both are there while the job runs."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom


class RayJobLink(BaseOperatorLink):
    """To the job's page in Ray's dashboard."""

    name = "Ray job"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Read the address that the operator left."""
        return str(XCom.get_value(key="ray_job_url", ti_key=ti_key) or "")


class MlflowRunLink(BaseOperatorLink):
    """To the stage's run in MLflow."""

    name = "MLflow run"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Read the address that the operator left."""
        return str(XCom.get_value(key="mlflow_run_url", ti_key=ti_key) or "")
