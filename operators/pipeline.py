"""What the four DAG files share: the trigger form, the assets between them, tasks from the list of stages."""

from __future__ import annotations

import datetime
from typing import Any

from airflow.sdk import DAG, Asset, Param

from operators.stage_operator import RunStageOperator
from qwen_core.config import bundled_recipes
from qwen_core.stages import DAGS, stages_of

TRAINING_POOL = "training"
"""Airflow pool that training stages share; on a laptop it has one slot."""


def pipeline_dag(dag_id: str, doc_md: str) -> DAG:
    """Make one of the pipeline's DAGs: a task for each stage, arrows by what the stages read.

    Args:
        dag_id: A word of `stages.DAGS`.
        doc_md: Shown on the DAG's page.

    Returns:
        The DAG, started by the asset of the one before it, the first one by hand or by schedule.
    """
    position = DAGS.index(dag_id)
    dag = DAG(
        dag_id=dag_id,
        doc_md=doc_md,
        schedule=[Asset(DAGS[position - 1])] if position else None,
        start_date=datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC),
        catchup=False,
        max_active_runs=1 if position == 0 else 4,
        tags=["qwen-core"],
        params=_params(),
        default_args={"retries": 2, "retry_delay": datetime.timedelta(seconds=15)},
        render_template_as_native_obj=True,
    )
    tasks: dict[str, Any] = {}
    stages = stages_of(dag_id)
    with dag:
        for stage in stages:
            tasks[stage.name] = RunStageOperator(
                stage=stage.name,
                doc_md=stage.summary,
                pool=TRAINING_POOL if stage.is_training else "default_pool",
                outlets=[Asset(dag_id)] if stage is stages[-1] else [],
            )
            for name in stage.inputs:
                if name in tasks:
                    tasks[name] >> tasks[stage.name]
    return dag


def _params() -> dict[str, Param]:
    """The trigger form."""
    return {
        "recipe": Param(
            "demo",
            type="string",
            title="Recipe",
            examples=bundled_recipes(),
            description="A bundled recipe, or the path of a YAML file that the Ray cluster can read.",
        ),
        # The null makes a field optional: the form takes an empty one of any other type for a mistake.
        "overrides": Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            title="Overrides",
            description="One a line: pretrain.max_steps=500",
        ),
        "inputs": Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            title="Inputs",
            description="Files, folders or globs instead of the recipe's, one a line.",
        ),
        "run_key": Param(
            None,
            type=["null", "string"],
            title="Run key",
            description="Continue a pipeline run; empty starts a new one.",
        ),
    }
