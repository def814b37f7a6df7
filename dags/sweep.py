"""DAG `sweep`: stops Ray jobs that no task waits for any more."""

from operators.deployment import clock
from operators.descriptions import task_page
from operators.orphans_operator import StopOrphanedJobsOperator
from operators.pipeline import project_dag
from qwen_core.stages import DAGS

OURS = [*DAGS, "retrain", "corpus_daily", "rollback"]

dag = project_dag(
    "sweep",
    """
### Jobs that nobody waits for

A task that is failed, cleared or deleted stops its Ray job itself. Where Ray, or all that could have stopped the job,
was away at that moment, the job goes on: this DAG finds and stops it, each hour. **Unpause it** where the Ray cluster
is this Airflow's alone: of another Airflow's DAG runs it knows nothing, and would stop their jobs.

每小时停止已无任务等待的 Ray 作业;仅在 Ray 集群由本 Airflow 独占时取消暂停。
""",
    schedule=clock("17 * * * *"),
    is_paused_upon_creation=True,
    max_active_runs=1,
    params={},
)

with dag:
    StopOrphanedJobsOperator(task_id="sweep", dag_ids=OURS, doc_md=task_page("sweep"))
