"""`RunStageOperator`: runs one stage of qwen-core by its word.

The settings of the run (recipe, overrides, run key) come from the asset event that started the DAG run, or from the
trigger form; with the finished stage they go out again with the DAG's asset.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import yaml

from operators.ray_operator import RayJobOperator


class RunStageOperator(RayJobOperator):
    """A Ray job that runs a stage."""

    template_fields: Sequence[str] = ("stage", "env_vars", "metadata")

    def __init__(self, *, stage: str, **kwargs: Any) -> None:
        """Store the arguments.

        Args:
            stage: The stage's word; also the task id.
            **kwargs: Those of `RayJobOperator`, without `entrypoint`.
        """
        kwargs.setdefault("task_id", stage)
        super().__init__(entrypoint="", **kwargs)
        self.stage = stage

    def execute(self, context: Any) -> dict[str, str] | None:
        """Compose the stage's command and run it; see `RayJobOperator`."""
        settings = settings_of(context)
        self.entrypoint = entrypoint_of(self.stage, settings)
        self.metadata = {"run_key": settings["run_key"], "stage": self.stage}
        context["ti"].xcom_push(key="settings", value=settings)
        return super().execute(context)

    def _finish(self, context: Any, submission_id: str, status: Any) -> dict[str, str]:
        result = super()._finish(context, submission_id, status)
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {
                **settings_of(context),
                "manifest_uri": result.get("manifest_uri"),
            }
        return result


def settings_of(context: Any) -> dict[str, Any]:
    """Find the settings of a pipeline run.

    Args:
        context: Airflow's.

    Returns:
        `recipe`, `overrides`, `run_key`.
    """
    for events in (context.get("triggering_asset_events") or {}).values():
        for event in events:
            if event.extra.get("run_key"):
                return {name: event.extra[name] for name in ("recipe", "overrides", "run_key")}
    params = context["params"]
    overrides = list(params.get("overrides") or [])
    if params.get("inputs"):
        listed = yaml.safe_dump(list(params["inputs"]), default_flow_style=True, width=10**9, allow_unicode=True)
        overrides.append(f"ingest.inputs={listed.strip()}")
    run_key = params.get("run_key") or context["dag_run"].run_id.replace(":", "-").replace("+", "-")
    return {"recipe": params["recipe"], "overrides": overrides, "run_key": run_key}


def entrypoint_of(stage: str, settings: dict[str, Any]) -> str:
    """Compose the command of a stage's job.

    Args:
        stage: The stage's word.
        settings: As `settings_of` gives them.

    Returns:
        A shell command; the cluster's own environment names the store and MLflow.
    """
    command = [
        "python",
        "-m",
        "qwen_core.jobs",
        stage,
        "--recipe",
        settings["recipe"],
        "--run-key",
        settings["run_key"],
    ]
    for override in settings["overrides"]:
        command += ["--set", override]
    return shlex.join(command)
