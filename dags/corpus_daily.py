"""DAG `corpus_daily`: a corpus that grows by a day at a time, and can be backfilled."""

from airflow.sdk import Asset

from operators.deployment import catchup_from, clock, text
from operators.descriptions import task_page
from operators.form import recipe_fields, run_fields
from operators.pipeline import FIRST_DAY, project_dag, stage_tasks
from operators.retrain_operator import PlanDayOperator
from operators.turn_sensor import TurnSensor

CORPUS = Asset("corpus_daily")
"""The days that are in. It starts nothing: training on each day of a backfill is seldom what one wants."""

dag = project_dag(
    "corpus_daily",
    """
### One day after another

Adds the files of one day to the corpus so far: `{date}` in the inputs stands for the day (`s3://raw/{date}/*.warc.gz`).
All days share one run key, so that each goes on from the one before; a day without files is skipped.

**Backfill**: button *Trigger → Backfill*, or `airflow backfill create --dag-id corpus_daily --from-date 2026-01-01
--to-date 2026-01-31 --dag-run-conf '{"recipe_path": "/recipes/mine.yaml"}'`. The days go one after another, in order,
whatever number of active runs is asked for. **Unpause it** for the day that ended, each night. **To train** on what is
in, start `pretrain` with the run key, or `retrain` with `retrain.corpus_from=RUN_KEY` among the overrides.

按日期增量构建语料,可回填;各天共用一个运行标识,依次追加。
""",
    schedule=clock(text("DAILY_CRON", "15 0 * * *")),
    start_date=catchup_from() or FIRST_DAY,
    catchup=catchup_from() is not None,
    is_paused_upon_creation=True,
    max_active_runs=1,
    params=recipe_fields() | {"run_key": run_fields()["run_key"]},
)

with dag:
    turn = TurnSensor(task_id="turn", doc_md=task_page("turn"))
    plan = PlanDayOperator(task_id="plan", corpus=CORPUS, doc_md=task_page("plan"))
    stages = stage_tasks("corpus", {"corpus": ("ingest", "classifiers", "filter", "dedup")}, plan_task_id="plan")
    stages["dedup"].outlets = [CORPUS]
    turn >> plan >> stages["ingest"]
