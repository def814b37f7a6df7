"""The whole path through a real Airflow, Ray and MLflow, as a user runs it; then nothing is left."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from qwen_core.artifacts import Store
from qwen_core.platform import Platform, processes
from qwen_core.stages import STAGES

TINY = str(Path(__file__).parents[1] / "recipes" / "tiny.yaml")
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(2400)]


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _run(home, *arguments):
    command = [str(Path(sys.executable).parent / "qwen-core"), *arguments, "--home", str(home)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    platform = Platform(tmp_path_factory.mktemp("p"))
    airflow, mlflow, dashboard = _free_ports(3)
    ray_port = 20_000 + airflow % 10_000
    platform.configure(airflow_port=airflow, mlflow_port=mlflow, ray_dashboard_port=dashboard, ray_port=ray_port)
    yield platform
    platform.down()


def test_run_goes_from_text_to_a_registered_model(platform):
    done = _run(platform.home.path, "run", "--recipe", TINY, "--run-key", "through-airflow")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "talk to the model" in done.stdout
    assert list(Store(platform.store_root).of_run("through-airflow")) == list(STAGES)
    client = MlflowClient(platform.mlflow_url)
    assert client.get_model_version_by_alias("tiny", "champion").version == "1"
    assert _run(platform.home.path, "status").returncode == 0


def test_failing_stage_is_named_with_the_end_of_its_log_and_what_to_do(platform):
    done = _run(platform.home.path, "run", "--recipe", TINY, "--run-key", "starved", "--set", "filter.languages=[xx]")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "stage 'filter' failed" in done.stdout
    assert "every document was dropped" in done.stdout and "Loosen the recipe's filter section" in done.stdout
    assert "qwen-core run --run-key starved" in done.stdout
    assert "ingest" in done.stdout and "already done, reused" in done.stdout


def test_down_leaves_no_process(platform):
    assert _run(platform.home.path, "down").returncode == 0
    assert processes.all_of(platform.home) == []
    assert _run(platform.home.path, "status").returncode == 1


def test_stage_goes_on_without_the_platform_in_the_same_mlflow_runs(platform):
    arguments = ["filter", "--recipe", TINY, "--run-key", "through-airflow", "--set", "filter.c4.min_sentences=4"]
    done = _run(platform.home.path, "stage", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = Store(platform.store_root).of_run("through-airflow")["filter"]
    client = MlflowClient(platform.tracking_uri)
    assert "plots/funnel.png" in [file.path for file in client.list_artifacts(manifest.mlflow_run_id, "plots")]
