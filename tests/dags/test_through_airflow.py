"""Approval, retraining, rollback through a real Airflow, Ray and MLflow, by the REST API that its pages use too."""

import time

import pytest
from mlflow.tracking import MlflowClient

from qwen_core.artifacts import Store
from qwen_core.platform import Platform
from tests.platform.platforms import TINY, free_ports, until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.endurance, pytest.mark.timeout(3600)]
SECONDS = 1500


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    platform = Platform(tmp_path_factory.mktemp("p"))
    airflow, mlflow, dashboard = free_ports(3)
    ray_port = 20_000 + airflow % 10_000
    platform.configure(airflow_port=airflow, mlflow_port=mlflow, ray_dashboard_port=dashboard, ray_port=ray_port)
    platform.up()
    yield platform
    platform.down()


def _ended(airflow, dag_id, run_id):
    until(lambda: airflow.dag_run(dag_id, run_id)["state"] in ("success", "failed"), SECONDS, "the run ends", every=2)
    return {task["task_id"]: task for task in airflow.task_instances(dag_id, run_id)}


def _champion(platform):
    version = MlflowClient(platform.mlflow_url).get_registered_model("tiny").aliases.get("champion")
    return str(version) if version else None


def _asked(airflow, run_key):
    """Wait until the run of DAG `release` with this run key asks a person."""

    def look():
        runs = airflow._json("/api/v2/dags/release/dagRuns", limit=100)["dag_runs"]
        mine = [
            run["dag_run_id"]
            for run in runs
            if run["partition_key"] == run_key or run["conf"].get("run_key") == run_key
        ]
        return [(run_id, one) for run_id in mine for one in airflow.waiting_actions("release", run_id)]

    ((run_id, question),) = until(look, SECONDS, "a person is asked", every=2)
    time.sleep(10)  # as a person would: Airflow 3.3 asks again where the answer overtakes the scheduler
    return run_id, question


def test_bad_override_ends_the_first_task_at_once_with_the_nearest_key(platform):
    airflow = platform.airflow
    run_id = airflow.trigger("corpus", {"recipe_path": TINY, "overrides": ["pretrain.max_step=5"]})
    tasks = _ended(airflow, "corpus", run_id)
    assert (tasks["ingest"]["state"], tasks["ingest"]["try_number"]) == ("failed", 1)
    assert airflow.xcom("corpus", run_id, "ingest", "submission_id") is None
    end = airflow.task_log("corpus", run_id, "ingest", 1)[-1500:]
    assert "did you mean 'max_steps'?" in end and "No job was started" in end


def test_rejected_model_stays_challenger_and_the_run_is_green(platform):
    airflow, overrides = platform.airflow, ["evaluate.max_new_tokens=6"]
    conf = {"recipe_path": TINY, "run_key": "one", "approval": True, "overrides": overrides}
    airflow.trigger("corpus", conf, partition_key="one")
    run_id, question = _asked(airflow, "one")
    assert "make it champion?" in question["subject"] and "| bits_per_byte |" in question["body"]
    airflow.answer("release", run_id, "approve", question["options"][1], "not yet")
    tasks = _ended(airflow, "release", run_id)
    assert (tasks["approve"]["state"], tasks["promote"]["state"]) == ("success", "skipped")
    assert airflow.dag_run("release", run_id)["state"] == "success"
    assert airflow.xcom("release", run_id, "approve", "return_value")["note"] == "not yet"
    version = str(Store(platform.store_root).of_run("one")["release"].details["version"])
    tags = MlflowClient(platform.mlflow_url).get_model_version("tiny", version).tags
    assert (tags["rejected_by"], tags["rejected_why"]) == ("admin", "not yet") and _champion(platform) is None


def test_approved_model_becomes_champion_in_the_persons_name(platform):
    airflow = platform.airflow
    before = _champion(platform)
    conf = {"recipe_path": TINY, "run_key": "one", "approval": True, "overrides": ["evaluate.max_new_tokens=7"]}
    airflow.trigger("release", conf)
    run_id, question = _asked(airflow, "one")
    airflow.answer("release", run_id, "approve", question["options"][0], "fine")
    assert _ended(airflow, "release", run_id)["promote"]["state"] == "success"
    version = airflow.xcom("release", run_id, "release", "return_value")["version"]
    assert _champion(platform) == str(version) != before
    tags = MlflowClient(platform.mlflow_url).get_model_version("tiny", str(version)).tags
    assert (tags["promoted_by"], tags["promoted_why"]) == ("admin", "fine")
    (event,) = airflow._json(
        "/api/v2/assets/events", source_dag_id="release", source_run_id=run_id, limit=10, name_pattern="champion"
    )["asset_events"]
    assert event["extra"]["version"] == str(version)


def test_nothing_new_is_green_and_says_why(platform):
    airflow = platform.airflow
    run_id = airflow.trigger("retrain", {"recipe_path": TINY, "run_key": "again"})
    tasks = _ended(airflow, "retrain", run_id)
    assert (tasks["turn"]["state"], tasks["plan"]["state"]) == ("success", "skipped")
    assert airflow.dag_run("retrain", run_id)["state"] == "success"
    assert "nothing new" in airflow.task_log("retrain", run_id, "plan", 1)
    assert "again" not in [run["partition_key"] for run in airflow._json("/api/v2/dags/corpus/dagRuns")["dag_runs"]]


def test_rollback_gives_the_alias_to_the_version_that_is_named(platform):
    airflow = platform.airflow
    run_id = airflow.trigger("rollback", {"model_name": "tiny", "version": 1, "reason": "worse at poems"})
    assert _ended(airflow, "rollback", run_id)["rollback"]["state"] == "success"
    assert _champion(platform) == "1"
