"""The DAGs: edges, joints, pools; parsing them loads nothing heavy."""

import importlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("airflow")

ALL = sorted(path.stem for path in (ROOT / "dags").glob("*.py"))
BY_HAND = {"release": {"approve", "promote"}, "corpus_daily": {"turn", "plan"}}


@pytest.fixture(scope="module")
def dags():
    from qwen_core.stages import DAGS

    return {name: importlib.import_module(f"dags.{name}").dag for name in (*DAGS, *sorted(set(ALL) - set(DAGS)))}


@pytest.fixture(scope="module")
def chain(dags):
    from qwen_core.stages import DAGS

    return {name: dags[name] for name in DAGS}


def test_a_file_holds_the_dag_of_its_name(dags):
    assert set(ALL) == {"corpus", "pretrain", "align", "release", "retrain", "rollback", "corpus_daily", "sweep"}
    assert all(dag.dag_id == name for name, dag in dags.items())


def test_every_stage_has_its_task_and_arrows_follow_what_it_reads(chain):
    from qwen_core.stages import STAGES

    found = [task.task_id for dag in chain.values() for task in dag.tasks if task.task_id in STAGES]
    assert found == list(STAGES)
    for dag in chain.values():
        stages = {task.task_id for task in dag.tasks} & set(STAGES)
        for name in stages:
            assert dag.get_task(name).upstream_task_ids == set(STAGES[name].inputs) & stages


def test_dags_are_joined_by_assets_of_which_each_event_starts_a_run_of_its_own(chain, dags):
    from airflow.sdk import PartitionedAssetTimetable

    for before, after in itertools.pairwise(chain):
        assert before in [outlet.name for task in chain[before].tasks for outlet in task.outlets]
        assert isinstance(chain[after].timetable, PartitionedAssetTimetable)
        assert f"name='{before}'" in str(chain[after].timetable.asset_condition)
    assert "name='retrain'" in str(chain["corpus"].timetable.asset_condition)
    assert [outlet.name for outlet in dags["retrain"].get_task("plan").outlets] == ["retrain"]


def test_assets_are_what_crosses_from_dag_to_dag(chain):
    made = {outlet.name for dag in chain.values() for task in dag.tasks for outlet in task.outlets}
    assert made == {
        *("corpus", "tokenizer", "pack", "pretrain", "instruct", "sft", "preference", "align", "release", "champion")
    }
    assert {inlet.name for inlet in chain["release"].get_task("evaluate").inlets} <= made


def test_every_task_has_its_page_in_both_languages(dags):
    for dag in dags.values():
        assert len(dag.doc_md) > 100
        for task in dag.tasks:
            assert "**When it fails**" in task.doc_md
            assert any("一" <= letter <= "鿿" for letter in task.doc_md)


def test_alignment_is_shown_as_tuning_and_preferences(chain):
    groups = chain["align"].task_group.children
    assert set(groups) == {"tuning", "preferences"}
    assert set(groups["tuning"].children) == {"instruct", "sft"}


def test_pools_exist_in_the_file_that_airflow_imports(dags):
    from qwen_core.platform.airflow import POOLS

    pools = json.loads(POOLS.read_text())
    used = {task.pool for dag in dags.values() for task in dag.tasks} - {"default_pool"}
    assert used == set(pools) == {"data", "training"}
    for pool in pools.values():
        assert set(pool) == {"slots", "description", "include_deferred"} and pool["include_deferred"]


def test_nearer_to_a_model_goes_first_and_a_lost_job_is_tried_again_ever_later(chain):
    weights = [task.priority_weight for dag in chain.values() for task in dag.tasks if task.pool != "default_pool"]
    assert weights == sorted(weights)
    task = chain["pretrain"].get_task("pretrain")
    assert (task.retries, task.retry_exponential_backoff) == (3, 2.0)
    assert task.execution_timeout is None
    assert chain["corpus"].max_active_runs == 1


def test_a_fresh_installation_starts_nothing_by_itself(dags):
    from airflow.sdk.definitions.timetables.assets import AssetTriggeredTimetable

    for name, dag in dags.items():
        if name in ("corpus_daily", "sweep"):
            assert dag.is_paused_upon_creation
        elif name != "rollback":
            assert isinstance(dag.timetable, AssetTriggeredTimetable)
        assert not dag.catchup and dag.deadline is None
        assert not any(task.on_failure_callback for task in dag.tasks)


def test_sweep_stops_jobs_of_our_dags_alone(dags):
    (task,) = dags["sweep"].tasks
    assert set(task.dag_ids) == set(ALL) - {"sweep"}


def test_daily_corpus_can_be_backfilled_in_the_order_of_its_days(dags):
    from airflow.sdk import CronDataIntervalTimetable

    dag = dags["corpus_daily"]
    assert isinstance(dag.timetable, CronDataIntervalTimetable)
    assert dag.get_task("plan").upstream_task_ids == {"turn"}
    assert dag.get_task("ingest").upstream_task_ids == {"plan"}
    assert [outlet.name for outlet in dag.get_task("dedup").outlets] == ["corpus_daily"]


def _parsed(code, **environment):
    imports = f"import sys; import {', '.join(f'dags.{name}' for name in ALL)}; "
    done = subprocess.run(
        [sys.executable, "-c", imports + code],
        **{"cwd": ROOT, "capture_output": True, "text": True, "check": True, "env": {**os.environ, **environment}},
    )
    return done.stdout.strip().splitlines()[-1]


def test_parsing_loads_nothing_heavy():
    heavy = (
        "ray",
        "torch",
        "deepspeed",
        "mlflow",
        "transformers",
        "pyarrow",
        "numpy",
        "pandas",
        "datasets",
        "tokenizers",
    )
    assert _parsed(f"print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_parsing_takes_few_modules_beyond_airflow_itself():
    airflow = "airflow.sdk.DAG; from airflow.providers.standard.operators import hitl; import airflow.triggers.base"
    before = subprocess.run(
        [sys.executable, "-c", f"import sys, airflow.sdk; {airflow}; print(len(sys.modules))"],
        **{"cwd": ROOT, "capture_output": True, "text": True, "check": True},
    )
    ours = int(_parsed("print(len(sys.modules))")) - int(before.stdout.splitlines()[-1])
    assert ours < 250  # pydantic, yaml, httpx and our own; a second's worth of modules is some thousand


def test_deployment_sets_clock_deadline_time_outs_and_approvers():
    told = _parsed(
        "r, p, l = dags.retrain.dag, dags.pretrain.dag, dags.release.dag; "
        "print(r.timetable.timetable.expression, r.catchup, r.start_date.date(), p.deadline[0].interval, "
        "p.get_task('pretrain').execution_timeout, p.get_task('pack').execution_timeout, "
        "l.get_task('approve').assigned_users, l.get_task('approve').response_timeout, "
        "l.get_task('approve').defaults == [l.get_task('approve').REJECT], dags.corpus.dag.params['recipe_path'])",
        QWEN_CORE_RETRAIN_CRON="30 3 * * *",
        QWEN_CORE_CATCHUP_FROM="2026-01-31",
        QWEN_CORE_DEADLINE_MINUTES="pretrain=600",
        QWEN_CORE_TASK_TIMEOUT_MINUTES="90,pretrain=4320",
        QWEN_CORE_APPROVERS="ada, lin",
        QWEN_CORE_APPROVAL_TIMEOUT_HOURS="48",
        QWEN_CORE_RECIPE="/recipes/mine.yaml",
    )
    assert told == (
        "30 3 * * * True 2026-01-31 10:00:00 3 days, 0:00:00 1:30:00 "
        "[{'id': 'ada', 'name': 'ada'}, {'id': 'lin', 'name': 'lin'}] 2 days, 0:00:00 True /recipes/mine.yaml"
    )
