"""A stage that is done tells MLflow over plain HTTP what MLflow's client would have told, and does not load it."""

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from qwen_core.artifacts import Outcome, Store
from qwen_core.config import load_recipe
from qwen_core.jobs.runner import run_stage
from qwen_core.jobs.sources import source_hashes
from qwen_core.stages import STAGES
from qwen_core.tracking import reuse
from qwen_core.tracking.outbox import Outbox

sys.path.append(str(Path(__file__).parent))
from real_server import RealServer

NAMES = ("ingest", "classifiers", "filter")
OVERRIDES = ["filter.gopher_quality.min_words=60", f"ingest.inputs=[{__file__}]"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = RealServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def done(tmp_path):
    """A store that has the artifacts of three stages, and the recipe that they are of."""
    store, recipe, made = Store(str(tmp_path / "store")), load_recipe("demo", OVERRIDES), {}
    for rows, name in enumerate(NAMES, 3):
        inputs = {word: made[word] for word in STAGES[name].inputs}
        attempt = store.begin(STAGES[name], recipe, "first", inputs, source_hashes(name, recipe))
        store.write(f"{attempt.data_uri}/part", "x")
        metrics = {"score": float("nan"), "tokens/zh": 4.0}
        made[name] = store.commit(attempt, Outcome(rows, 7, drops={"short": 2}, metrics=metrics), 1.5, "origin")
        store.point("first", made[name])
    return store, recipe


def _ingest(store):
    return store.of_run("first")["ingest"]


@pytest.fixture
def ways(monkeypatch):
    """How each stage was told, in order."""
    ways, own = [], reuse.tell_reuse

    def watched(*arguments):
        ids = own(*arguments)
        ways.append("plainly" if ids else "by the client")
        return ids

    monkeypatch.setattr("qwen_core.jobs.runner.tell_reuse", watched)
    return ways


def _told(uri, key):
    """All that MLflow knows of a pipeline run, by stage."""
    client, told = MlflowClient(uri), {}
    (experiment,) = (one.experiment_id for one in client.search_experiments() if one.name == "demo")
    runs = client.search_runs([experiment], f"tags.`qwen_core.run_key` = '{key}'")
    parent = next(run.info.run_id for run in runs if run.data.tags["qwen_core.stage"] == "pipeline")
    for run in runs:
        tags = {name: text.replace(parent, "parent").replace(key, "key") for name, text in run.data.tags.items()}
        datasets = sorted((str(one.dataset.to_dictionary()), one.tags[0].value) for one in run.inputs.dataset_inputs)
        # NaN equals nothing; and how busy the machine is while nothing runs nobody asks
        metrics = {name: str(value) for name, value in run.data.metrics.items() if not name.startswith("system/")}
        artifacts = [one.path for one in client.list_artifacts(run.info.run_id)]
        state = (run.info.status, run.info.run_name.replace(key, "key"), run.info.end_time >= run.info.start_time)
        told[tags["qwen_core.stage"]] = (state, run.data.params, metrics, tags, datasets, artifacts)
    return told


@pytest.mark.slow
def test_both_ways_leave_the_same_in_mlflow_also_when_done_twice(server, done, ways, monkeypatch, capsys):
    store, recipe = done
    for _ in range(2):
        for name in NAMES:
            run_stage(name, recipe, "light", store, server.uri)
    light = _told(server.uri, "light")
    assert f"[filter] already done: {store.of_run('light')['filter'].uri}" in capsys.readouterr().out
    monkeypatch.setattr(reuse, "is_plain", lambda uri: False)
    for name in NAMES:
        run_stage(name, recipe, "full", store, server.uri)
    assert ways == ["plainly"] * 6 + ["by the client"] * 3
    full = _told(server.uri, "full")
    assert set(light) == set(full) == {"pipeline", *NAMES}
    for stage in full:
        for one, other in zip(light[stage], full[stage], strict=True):
            assert one == other, stage
    assert light["filter"][2]["score"] == "nan" and light["filter"][3]["qwen_core.origin_run_id"] == "origin"


@pytest.mark.slow
def test_changed_param_becomes_a_tag_and_what_waits_is_sent_first(server, done):
    store, recipe = done
    told = [server.uri, recipe, "changed", _ingest(store), {}]
    for seed in (1, 2):
        ids = reuse.tell_reuse(*told, {"seed": seed}, {"rows": 3.0}, f"{store.root}/spool")
    run = MlflowClient(server.uri).get_run(ids.run)
    assert run.data.params == {"seed": "1"} and run.data.tags["changed.seed"] == "2"
    Outbox(f"{store.root}/spool", ids.run).add({"ids": vars(ids), "opening": None, "write": {"kind": "tags"}})
    assert reuse.tell_reuse(*told, {"seed": 2}, {"rows": 3.0}, f"{store.root}/spool") is None


@pytest.mark.slow
def test_mlflow_that_does_not_take_the_recipe_is_left_to_the_client(server, done, monkeypatch):
    def away(*_):
        raise MlflowException("away")

    monkeypatch.setattr("qwen_core.tracking.rest.RestClient.log_text", away)
    store, recipe = done
    told = [server.uri, recipe, "away", _ingest(store), {}, {}, {}, f"{store.root}/spool"]
    assert reuse.tell_reuse(*told) is None


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_CLIENT_CERT_PATH", "MLFLOW_WORKSPACE"])
def test_credentials_and_workspaces_are_left_to_the_client(monkeypatch, name):
    assert reuse.is_plain("http://127.0.0.1:5000") and not reuse.is_plain("sqlite:///mlflow.db")
    monkeypatch.setenv(name, "something")
    assert not reuse.is_plain("http://127.0.0.1:5000")


def test_server_that_is_away_is_left_to_the_client(done):
    store, recipe = done
    assert (
        reuse.tell_reuse("http://127.0.0.1:9", recipe, "k", _ingest(store), {}, {}, {}, f"{store.root}/spool") is None
    )


def test_runner_loads_no_mlflow():
    code = "import sys, qwen_core.jobs.runner; assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
