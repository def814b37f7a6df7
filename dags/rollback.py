"""DAG `rollback`: the alias `champion` back to the version that had it before."""

from airflow.sdk import Asset, Param

from operators.descriptions import task_page
from operators.form import model_fields
from operators.pipeline import project_dag
from operators.release_operators import RollBackModelOperator

dag = project_dag(
    "rollback",
    """
### Back to the champion before

Gives the alias `champion` back to the version that had it before, or to the one that is named. Nothing is deleted:
the version that it is taken from keeps its number, and a tag says when and why.

把别名 champion 退回到上一个版本或指定版本;不会删除任何模型。
""",
    schedule=None,
    max_active_runs=1,
    params=model_fields()
    | {"reason": Param(None, type=["null", "string"], title="Reason / 原因", description_md="Kept with the version.")},
)

with dag:
    RollBackModelOperator(task_id="rollback", doc_md=task_page("rollback"), outlets=[Asset("champion")])
