"""DAG `retrain`: looks for new sources, and starts the chain of DAGs where there are any."""

from airflow.sdk import Asset, AssetOrTimeSchedule

from operators.deployment import catchup_from, clock, text
from operators.descriptions import task_page
from operators.form import recipe_fields, run_fields
from operators.pipeline import FIRST_DAY, RETRAIN, project_dag
from operators.retrain_operator import PlanRetrainingOperator
from operators.turn_sensor import TurnSensor
from qwen_core.stages import DAGS

SOURCES = [Asset("sources")]
cron = text("RETRAIN_CRON", "")

dag = project_dag(
    "retrain",
    """
### Retraining, when there is something new

Looks at the sources, the corpus so far and the champion. Nothing new: the run is green, its task `plan` skipped, and
the last line of its log says why. Something new: the asset `retrain` starts `corpus`, and `pretrain`, `align` and
`release` follow; only the new files are read.

It runs by the clock where `QWEN_CORE_RETRAIN_CRON` is set, and whenever the asset `sources` is updated: let your own
DAGs name `Asset("sources")` as outlet of the task that brings files. Runs go one after another: the next one is
planned when the model of the one before is registered.

有新数据时自动再训练:按 cron 或资产 `sources` 触发;没有新数据则跳过并说明原因。
""",
    schedule=AssetOrTimeSchedule(timetable=clock(cron), assets=SOURCES) if cron else SOURCES,
    start_date=catchup_from() or FIRST_DAY,
    catchup=catchup_from() is not None,
    max_active_runs=1,
    params=recipe_fields() | run_fields(),
)

with dag:
    turn = TurnSensor(task_id="turn", chain=DAGS, doc_md=task_page("turn"))
    plan = PlanRetrainingOperator(task_id="plan", outlets=[RETRAIN], doc_md=task_page("plan"))
    turn >> plan
