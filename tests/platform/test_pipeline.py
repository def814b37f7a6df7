"""The whole path through a real Airflow, Ray and MLflow, as a user runs it; then nothing is left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from qwen_core.artifacts import Store
from qwen_core.platform import processes
from qwen_core.stages import STAGES
from tests.platform.platforms import TINY, databases

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(2400)]


def _run(home, *arguments):
    command = [str(Path(sys.executable).parent / "qwen-core"), *arguments, "--home", str(home)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


@pytest.fixture(scope="module", params=databases("sqlite"))
def platform(request, platforms):
    server = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    yield platforms.get(server, is_fresh=True)
    platforms.end()


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
