"""Wrong connections, wrong recipes, artifacts that vanish, two runs of one key: a clear state, a clear message."""

import shutil
from pathlib import Path

import pytest

from qwen_core.artifacts import Store
from qwen_core.errors import PlatformError
from qwen_core.stages import stages_of
from tests.platform.platforms import TINY, Airflow, free_ports, until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

LAST_LINES = 15


@pytest.fixture
def airflow(platforms):
    airflow = Airflow(platforms.any())
    airflow.ask("PATCH", "/dags/pretrain", json={"is_paused": True})
    yield airflow
    airflow.ask("PATCH", "/dags/pretrain", json={"is_paused": False})


def _end_of_log(airflow, dag, run_id, task):
    return "\n".join(airflow.last_log(dag, run_id, task).splitlines()[-LAST_LINES:])


@pytest.mark.parametrize(
    ("connection", "message"),
    [("nowhere", "Ray does not answer at http://127.0.0.1:"), ("refused", "refuses the token")],
)
def test_wrong_connection_is_told_at_the_end_of_the_log(airflow, connection, message):
    port = free_ports(1)[0] if connection == "nowhere" else airflow.platform.settings.ray_dashboard_port
    body = {"connection_id": f"ray_{connection}", "conn_type": "ray", "host": "127.0.0.1", "port": port}
    airflow.ask("POST", "/connections", expected=201, json=body | {"password": "0" * 64})
    run_id = airflow.trigger(f"ray_{connection}")
    assert airflow.wait_end(f"ray_{connection}", run_id) == "failed"
    assert message in _end_of_log(airflow, f"ray_{connection}", run_id, "job")


def test_wrong_recipe_is_refused_before_any_job_starts(airflow):
    with pytest.raises(PlatformError, match="recipe"):
        airflow.trigger("corpus", recipe="nonsense")
    conf = {"recipe_path": TINY, "run_key": "wrong", "overrides": ["dedup.num_bukets=7", "ingest.inputs=[]"]}
    run_id = airflow.trigger("corpus", **conf)
    assert airflow.wait_end("corpus", run_id) == "failed"
    told = airflow.task("corpus", run_id, "ingest")
    assert told["state"] == "failed" and told["try_number"] == 1
    assert "dedup.num_bukets" in _end_of_log(airflow, "corpus", run_id, "ingest")
    assert airflow.jobs(run_key="wrong") == []


def test_manifest_that_vanishes_under_a_running_dag_is_named_and_the_next_run_mends_it(airflow):
    conf = {"recipe_path": TINY, "run_key": "vanishing"}
    run_id = airflow.trigger("corpus", **conf)
    until(lambda: airflow.task("corpus", run_id, "ingest")["state"] == "success", 600, "ingest is done")
    ingest = Store(airflow.platform.store_root).of_run("vanishing")["ingest"]
    shutil.rmtree(Path(ingest.uri).parent)
    failed = until(lambda: _in_trouble(airflow, run_id), 600, "a stage misses it", every=1)
    end = "\n".join(airflow.client.task_log("corpus", run_id, failed, 1).splitlines()[-LAST_LINES:])
    assert "reads the output of ingest" in end and "Run first: qwen-core stage ingest" in end, end
    airflow.ask("PATCH", f"/dags/corpus/dagRuns/{run_id}", json={"state": "failed"})  # further tries cannot help
    run_id = airflow.trigger("corpus", **conf)
    assert airflow.wait_end("corpus", run_id, 900) == "success"
    assert Store(airflow.platform.store_root).of_run("vanishing")["ingest"].fingerprint == ingest.fingerprint


def _in_trouble(airflow, run_id):
    """The first stage whose first try failed."""
    tasks = airflow.client.task_instances("corpus", run_id)
    return next((task["task_id"] for task in tasks if task["state"] in ("failed", "up_for_retry")), None)


def test_two_runs_of_one_key_at_once_do_no_work_twice(airflow):
    conf = {"recipe_path": TINY, "run_key": "undisturbed"}
    assert airflow.wait_end("corpus", airflow.trigger("corpus", **conf), 900) == "success"
    airflow.ask("PATCH", "/dags/pretrain", json={"is_paused": False})
    airflow.ask("PATCH", "/dags/align", json={"is_paused": True})
    conf["run_key"], conf["overrides"] = "undisturbed", ["tokenizer.vocab_size=801"]
    runs = [airflow.trigger("pretrain", **conf) for _ in range(2)]
    ends = [airflow.wait_end("pretrain", run_id, 900) for run_id in runs]
    done = {
        stage.name: [
            job["submission_id"]
            for job in airflow.jobs(run_key="undisturbed", stage=stage.name)
            if job["status"] == "SUCCEEDED"
            and "done in" in airflow.platform.job_log(job["submission_id"])
            and any(run_id in str(job["metadata"]) for run_id in runs)
        ]
        for stage in stages_of("pretrain")
    }
    print(ends, done)
    assert "success" in ends
    for run_id in [run_id for run_id, end in zip(runs, ends, strict=True) if end == "failed"]:
        tasks = airflow.client.task_instances("pretrain", run_id)
        refused = next(task["task_id"] for task in tasks if task["state"] == "failed")
        assert "already, so this one was stopped" in _end_of_log(airflow, "pretrain", run_id, refused)
    assert all(len(jobs) == 1 for jobs in done.values()), done
    airflow.ask("PATCH", "/dags/align", json={"is_paused": False})
