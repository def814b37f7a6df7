"""What Airflow is told of the provider, and what it costs to load it."""

import json
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("airflow")

import airflow
from airflow.sdk._shared.module_loading import import_string

from operators.get_provider_info import get_provider_info
from operators.orphans_operator import StopOrphanedJobsOperator

SCHEMA = Path(airflow.__file__).parent / "provider_info.schema.json"
HEAVY = ("ray", "torch", "mlflow", "pyarrow", "numpy", "pandas", "deepspeed", "qwen_core.jobs", "qwen_core.train")


def test_description_follows_airflows_schema_and_names_what_exists():
    jsonschema = pytest.importorskip("jsonschema")
    told = get_provider_info()
    jsonschema.validate(told, json.loads(SCHEMA.read_text()))
    (kind,) = told["connection-types"]
    names = [kind["hook-class-name"], *told["extra-links"], *told["notifications"]]
    assert all(import_string(name) for name in names)
    modules = [
        name for part in ("operators", "hooks", "triggers") for one in told[part] for name in one["python-modules"]
    ]
    assert all(__import__(name) for name in modules)


def test_forms_fields_are_those_that_the_connection_reads():
    (kind,) = get_provider_info()["connection-types"]
    source = (Path(__file__).parents[2] / "operators" / "ray_connection.py").read_text()
    assert all(f'"{name}"' in source.split("class RayAddress")[1] for name in kind["conn-fields"])


def test_airflow_finds_the_provider_when_the_package_is_installed():
    found = [one for one in entry_points(group="apache_airflow_provider") if one.value.startswith("operators.")]
    if not found:
        pytest.skip("qwen-core is not installed, or was before the entry point existed: pip install -e .")
    assert found[0].load()()["package-name"] == "qwen-core"


def test_nothing_heavy_is_loaded_with_operators_notifiers_or_the_description():
    code = (
        "import sys, airflow.sdk; before = set(sys.modules)\n"
        "import operators.ray_operator, operators.notifiers, operators.orphans_operator, operators.get_provider_info\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules and name not in before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _job(submission_id, ray, task, **told):
    metadata = {"dag_id": "d", "run_id": "r", "task_id": task, "map_index": "-1", "airflow_run_started": ""}
    ray.add(submission_id, **{"metadata": metadata, "start_time": 0} | told)


def test_jobs_that_nobody_waits_for_are_stopped_and_no_others(ray):
    _job("of-failed", ray, "failed")
    _job("of-deleted", ray, "deleted")
    _job("of-running", ray, "running")
    _job("of-retry", ray, "retry")
    _job("young", ray, "failed", start_time=time.time() * 1000)
    _job("of-another-user", ray, "failed", metadata={"who": "else"})
    states = {"failed": "failed", "running": "deferred", "retry": "up_for_retry"}
    instance = SimpleNamespace(get_task_states=lambda dag_id, run_ids: {"r": states})
    stopped = StopOrphanedJobsOperator(task_id="sweep").execute({"ti": instance})
    assert stopped == ["of-failed", "of-deleted"]
    left = [name for name, job in ray.jobs.items() if job["status"] == "RUNNING"]
    assert left == ["of-running", "of-retry", "young", "of-another-user"]


def test_other_dags_jobs_are_left_alone_when_dags_are_named(ray):
    _job("of-failed", ray, "failed")
    instance = SimpleNamespace(get_task_states=lambda dag_id, run_ids: {})
    assert StopOrphanedJobsOperator(task_id="sweep", dag_ids=["mine"]).execute({"ti": instance}) == []
