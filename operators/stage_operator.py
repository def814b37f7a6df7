"""`RunStageOperator`: runs one stage of qwen-core by its word.

The settings of the run (recipe, overrides, run key) come from the asset event that started the DAG run, or from the
trigger form; with the finished stage they go out again with its assets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk.exceptions import AirflowException

from operators.ray_operator import RayJobOperator
from operators.settings import Settings, check_settings, command_line, event_of, refuse_without_run, settings_of
from qwen_core.stages import DAGS, STAGES


class RunStageOperator(RayJobOperator):
    """A Ray job that runs a stage."""

    template_fields: Sequence[str] = ("stage", "env_vars")

    def __init__(self, *, stage: str, plan_task_id: str | None = None, **kwargs: Any) -> None:
        """Store the arguments.

        Args:
            stage: The stage's word; also the task id.
            plan_task_id: Task of the same DAG that says with which settings to run, instead of form or asset event.
            **kwargs: Those of `RayJobOperator`, without `entrypoint`.
        """
        kwargs.setdefault("task_id", stage)
        super().__init__(entrypoint="", **kwargs)
        self.stage = stage
        self.plan_task_id = plan_task_id

    def execute(self, context: Any) -> Any:
        """Check the settings, compose the stage's command and run it; see `RayJobOperator`."""
        if (dag_id := STAGES[self.stage].dag) != DAGS[0]:
            refuse_without_run(context, dag_id)
        settings = self.settings(context)
        check_settings(settings, self.log)
        self._compose(settings)
        context["ti"].xcom_push(key="settings", value=settings)
        return self._announce(context, super().execute(context))

    def execute_complete(self, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Take the job's answer, and tell it with the stage's assets; see `RayJobOperator`."""
        self._compose(self.settings(context))  # a job that the cluster lost is submitted anew
        return self._announce(context, super().execute_complete(context, *args, **kwargs))

    def _compose(self, settings: Settings) -> None:
        self.entrypoint = command_line(["qwen_core.jobs", self.stage], settings)
        self.metadata = {"run_key": settings["run_key"], "stage": self.stage}
        self.exclusive_key = f"{settings['run_key']}/{self.stage}"  # two jobs would train on each other's checkpoints

    def settings(self, context: Any) -> Settings:
        """Find the settings of the run.

        Args:
            context: Airflow's.

        Returns:
            Those of the plan, where the DAG has one; else see `settings_of`.
        """
        if self.plan_task_id is None:
            return settings_of(context)
        planned: Settings = context["ti"].xcom_pull(task_ids=self.plan_task_id, key="settings")
        return planned

    def _announce(self, context: Any, result: Any) -> Any:
        """Lay settings and figures into the asset events, under the run's own partition."""
        if not (result or {}).get("manifest_uri"):  # every stage tells it; the node that held the log may be gone
            raise AirflowException(f"stage {self.stage} is done, but its answer is lost: the next try reads it anew")
        settings = self.settings(context)
        for outlet in self.outlets:
            event = context["outlet_events"][outlet]
            event.extra = event_of(settings, result)
            # A partition of its own makes each pipeline run start a DAG run of its own in the next DAG: Airflow
            # makes one of all events that wait, and all but one run would be lost.
            event.add_partitions(settings["run_key"])
        return result
