"""DAGs of the tests: Ray jobs that sleep, do nothing, or cannot be reached."""

import datetime
from pathlib import Path

from airflow.sdk import DAG

from operators.ray_operator import RayJobOperator

_SLEEPER = f"exec python {Path(__file__).parents[1] / 'sleeper.py'}"
_UNTIL_THERE_IS = "while [ ! -e {{ dag_run.conf['flag'] }} ]; do sleep 1; done"

with DAG("sleeps", schedule=None, max_active_runs=4):
    RayJobOperator(task_id="sleep", entrypoint=_SLEEPER)

with DAG("sleeps_in_a_worker", schedule=None, max_active_runs=4):
    RayJobOperator(task_id="sleep", entrypoint=_SLEEPER, deferrable=False)

with DAG("times_out", schedule=None):
    for name in ("deferred", "in_a_worker"):
        RayJobOperator(
            task_id=name,
            entrypoint=_SLEEPER,
            deferrable=name == "deferred",
            execution_timeout=datetime.timedelta(seconds=60),
        )

with DAG("twenty", schedule=None, max_active_tasks=20):
    for number in range(20):
        RayJobOperator(task_id=f"job_{number}", entrypoint=_UNTIL_THERE_IS, quick_seconds=0)

for connection in ("nowhere", "refused"):
    with DAG(f"ray_{connection}", schedule=None):
        RayJobOperator(task_id="job", entrypoint="echo done", ray_conn_id=f"ray_{connection}", unreachable_seconds=5)
