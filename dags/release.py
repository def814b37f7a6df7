"""DAG `release`: measure, register, and let the better model be champion."""

from airflow.sdk import Asset

from operators.alerts import success_callbacks
from operators.deployment import approvers, hours
from operators.descriptions import task_page
from operators.pipeline import pipeline_dag
from operators.release_operators import ApproveReleaseOperator, PromoteModelOperator

dag = pipeline_dag(
    "release",
    """
### Measure and register

`evaluate` measures bits per byte, answers and preferences on held-out data and writes sample generations, `release`
registers the model in MLflow as `challenger` and compares it with the champion. A challenger that passes becomes
`champion`: by itself, or when a person has said so under *Required Actions* (field *Ask before a new champion*).
Starts when the asset `align` is made; started by hand, give the run key to continue. The way back: DAG `rollback`.

评测、登记并与现任冠军比较;可设人工审批。退回请用 DAG `rollback`。
""",
    **success_callbacks(),
)

with dag:
    approve = ApproveReleaseOperator(
        task_id="approve",
        doc_md=task_page("approve"),
        response_timeout=hours("APPROVAL_TIMEOUT_HOURS"),
        assigned_users=approvers(),
    )
    promote = PromoteModelOperator(
        task_id="promote",
        doc_md=task_page("promote"),
        trigger_rule="none_failed",  # nobody needs to be asked: `approve` is skipped, and this one has its own look
        outlets=[Asset("champion")],
    )
    dag.get_task("release") >> approve >> promote
