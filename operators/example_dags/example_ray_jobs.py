"""DAG `example_ray_jobs`: Ray jobs that count, report and may have nothing to do.

Copy it into your DAG folder. It needs a connection `ray_default` of type Ray, and `pip install qwen-core[airflow]`.
"""

import datetime
import shlex

from airflow.sdk import DAG, Param

from operators.notifiers import alert_notifiers
from operators.orphans_operator import StopOrphanedJobsOperator
from operators.ray_operator import RayJobOperator

COUNT = """
import json, time
for second in range(1, {{ params.seconds }} + 1):
    print(f"second {second} of {{ params.seconds }}", flush=True)
    time.sleep(1)
print("qwen-core result: " + json.dumps({"seconds": {{ params.seconds }}}))
"""

with DAG(
    dag_id="example_ray_jobs",
    schedule=None,
    start_date=datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC),
    params={"seconds": Param(10, type="integer", minimum=1, maximum=86_400)},
    default_args={"retries": 2, "retry_delay": datetime.timedelta(seconds=15)},
    # Empty where the deployment names no channel.
    on_failure_callback=alert_notifiers(),
    tags=["ray"],
) as dag:
    count = RayJobOperator(
        task_id="count",
        entrypoint=f"exec python -c {shlex.quote(COUNT)}",
        entrypoint_num_cpus=1,
        execution_timeout=datetime.timedelta(days=2),
    )
    report = RayJobOperator(
        task_id="report",
        entrypoint="echo counted {{ ti.xcom_pull(task_ids='count')['seconds'] }} seconds as $WHO",
        env_vars={"WHO": "{{ dag_run.run_id }}"},
    )
    maybe = RayJobOperator(task_id="maybe", entrypoint="echo nothing new; exit 9", skip_on_exit_code=9)
    sweep = StopOrphanedJobsOperator(task_id="sweep", dag_ids=["example_ray_jobs"], trigger_rule="all_done")
    count >> report >> maybe >> sweep
