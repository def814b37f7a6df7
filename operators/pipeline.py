"""What the DAG files share: a DAG that has its tasks from the list of stages, and the assets between the DAGs.

    corpus ─▶ Asset corpus ─▶ pretrain ─▶ Asset pretrain ─▶ align ─▶ Asset align ─▶ release ─▶ Asset release

An artifact that a stage of a later DAG reads is an asset, and no other is: the asset view shows how the DAGs hang
together, and each event tells which artifact a run made. The partition of an event is the run key.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from airflow.sdk import DAG, Asset, Param, PartitionedAssetTimetable, TaskGroup

from operators.alerts import deadline, failure_callbacks
from operators.deployment import minutes, retries
from operators.descriptions import task_page
from operators.form import recipe_fields, run_fields
from operators.stage_operator import RunStageOperator
from qwen_core.stages import DAGS, STAGES, Stage, stages_of

DATA_POOL, TRAINING_POOL = "data", "training"
"""Airflow pools of the stages; `qwen_core/platform/pools.json` has their sizes on a laptop."""

RETRAIN = Asset("retrain")
"""A retraining that is due: with it `retrain` starts the chain."""

FIRST_DAY = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)


def pipeline_dag(dag_id: str, doc_md: str, groups: Mapping[str, Iterable[str]] | None = None, **arguments: Any) -> DAG:
    """Make one of the pipeline's DAGs: a task for each stage, arrows by what the stages read.

    Args:
        dag_id: A word of `stages.DAGS`.
        doc_md: Shown on the DAG's page.
        groups: Stages that are shown as one box, by the box's name.
        **arguments: More of the DAG's own.

    Returns:
        The DAG, started by the asset of the one before it; the first one by `retrain`, or by hand.
    """
    position = DAGS.index(dag_id)
    dag = project_dag(
        dag_id,
        doc_md,
        # Partitioned: each event starts a run of its own. Of a plain schedule Airflow would make one run of all
        # events that wait, and all pipeline runs but one would be lost.
        schedule=PartitionedAssetTimetable(assets=Asset(DAGS[position - 1]) if position else RETRAIN),
        max_active_runs=4 if position else 1,
        params=recipe_fields() | run_fields(),
        **arguments,
    )
    with dag:
        stage_tasks(dag_id, groups)
    return dag


def project_dag(dag_id: str, doc_md: str, params: Mapping[str, Param], **arguments: Any) -> DAG:
    """Make a DAG with what all of ours have alike: retries, alerts, deadline.

    Args:
        dag_id: Also the file's name.
        doc_md: Shown on the DAG's page.
        params: The trigger form.
        **arguments: More of the DAG's own.

    Returns:
        The DAG, still without tasks.
    """
    return DAG(
        dag_id=dag_id,
        doc_md=doc_md,
        params=dict(params),
        **{"start_date": FIRST_DAY, "catchup": False, **arguments},
        tags=["qwen-core"],
        default_args={**retries(), **failure_callbacks()},
        render_template_as_native_obj=True,
        **deadline(dag_id),
    )


def stage_tasks(
    dag_id: str, groups: Mapping[str, Iterable[str]] | None = None, **arguments: Any
) -> dict[str, RunStageOperator]:
    """Make the tasks of a DAG's stages, within the DAG that is open.

    Args:
        dag_id: A word of `stages.DAGS`.
        groups: As for `pipeline_dag`.
        **arguments: More of the operators' own.

    Returns:
        The tasks by stage, in running order.
    """
    boxes = {word: name for name, words in (groups or {}).items() for word in words}
    made = {name: TaskGroup(name, prefix_group_id=False) for name in dict.fromkeys(boxes.values())}
    tasks: dict[str, RunStageOperator] = {}
    for stage in stages_of(dag_id):
        box = {"task_group": made[boxes[stage.name]]} if stage.name in boxes else {}
        tasks[stage.name] = RunStageOperator(**{**stage_arguments(stage), **box, **arguments})
        for name in stage.inputs:
            if name in tasks:
                tasks[name] >> tasks[stage.name]
    return tasks


def stage_arguments(stage: Stage) -> dict[str, Any]:
    """Say how a stage's task runs.

    Args:
        stage: The stage.

    Returns:
        Arguments of `RunStageOperator`.
    """
    read = [STAGES[name] for name in stage.inputs if STAGES[name].dag != stage.dag]
    own = asset_of(stage)
    return {
        "stage": stage.name,
        "doc_md": task_page(stage.name),
        "pool": TRAINING_POOL if stage.is_training else DATA_POOL,
        # What is nearest to a finished model goes first, whichever run it belongs to.
        "priority_weight": list(STAGES).index(stage.name) + 1,
        "weight_rule": "absolute",
        "execution_timeout": minutes("TASK_TIMEOUT_MINUTES", stage.name),
        "inlets": [asset for other in read if (asset := asset_of(other))],
        "outlets": [own] if own else [],
    }


def asset_of(stage: Stage) -> Asset | None:
    """Name the asset that a stage's artifact is.

    Args:
        stage: The stage.

    Returns:
        Of the last stage of a DAG the asset of the DAG's name, which starts the next one; of others their own where a
        later DAG reads it; `None` for what stays within its DAG.
    """
    if stage is stages_of(stage.dag)[-1]:
        return Asset(stage.dag)
    is_read = any(stage.name in other.inputs and other.dag != stage.dag for other in STAGES.values())
    return Asset(stage.name) if is_read else None
