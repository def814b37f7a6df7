"""MLflow layout: experiment per recipe, parent per pipeline run, nested run per stage."""

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

import pytest
from mlflow.tracking import MlflowClient

from qwen_core.config import load_recipe
from qwen_core.tracking.runs import begin_stage_run, pipeline_run_id


@pytest.fixture
def recipe():
    return load_recipe("demo")


def test_stages_nest_below_one_parent_and_a_rerun_continues_its_run(mlflow_uri, recipe):
    with begin_stage_run(mlflow_uri, recipe, "key", "ingest", "f1") as first:
        first.log_metrics({"loss": 2.0}, step=0)
    with begin_stage_run(mlflow_uri, recipe, "key", "ingest", "f1") as again:
        again.log_metrics({"loss": 1.0}, step=1)
    with begin_stage_run(mlflow_uri, recipe, "key", "filter", "f2") as other:
        pass
    assert again.run_id == first.run_id and other.run_id != first.run_id
    parent = pipeline_run_id(mlflow_uri, recipe, "key")
    assert {first.parent_id, other.parent_id} == {parent}
    client = MlflowClient(mlflow_uri)
    assert [(m.step, m.value) for m in client.get_metric_history(first.run_id, "loss")] == [(0, 2.0), (1, 1.0)]
    assert client.get_run(first.run_id).data.tags["mlflow.parentRunId"] == parent
    assert client.get_experiment(client.get_run(parent).info.experiment_id).name == "demo"
    assert [a.path for a in client.list_artifacts(parent)] == ["recipe.yaml"]


def test_stages_that_start_together_share_one_parent(mlflow_uri, recipe):
    with ThreadPoolExecutor(3) as pool:
        parents = list(pool.map(lambda _: pipeline_run_id(mlflow_uri, recipe, "key"), range(3)))
    assert len(set(parents)) == 1
    client = MlflowClient(mlflow_uri)
    experiment = client.get_run(parents[0]).info.experiment_id
    assert [run.info.run_id for run in client.search_runs([experiment])] == parents[:1]
    assert [a.path for a in client.list_artifacts(parents[0])] == ["recipe.yaml"]


def test_failed_stage_marks_its_run_and_the_parent(mlflow_uri, recipe):
    with pytest.raises(ZeroDivisionError), begin_stage_run(mlflow_uri, recipe, "key", "sft", "f") as run:
        _ = 1 / 0
    client = MlflowClient(mlflow_uri)
    assert client.get_run(run.run_id).info.status == "FAILED"
    assert client.get_run(run.parent_id).info.status == "FAILED"


def test_params_are_dotted_on_run_and_parent_and_a_change_becomes_a_tag(mlflow_uri, recipe):
    with begin_stage_run(mlflow_uri, recipe, "key", "sft", "f") as run:
        run.log_params({"sft": {"max_steps": 3, "inputs": []}})
        run.log_params({"sft": {"max_steps": 4}})
        run.log_result({"rows": 5, "seconds": 5})
    client = MlflowClient(mlflow_uri)
    parent = client.get_run(run.parent_id)
    assert parent.data.params == client.get_run(run.run_id).data.params == {"sft.max_steps": "3", "sft.inputs": "[]"}
    assert parent.data.tags["changed.sft.max_steps"] == "4"
    assert parent.data.metrics == {"time/sft_seconds": 5.0}


def test_comparison_lays_the_run_beside_the_ones_before_it(mlflow_uri, recipe):
    with begin_stage_run(mlflow_uri, recipe, "first", "release", "f1") as first:
        alone = first.comparison_path()
    with begin_stage_run(mlflow_uri, recipe, "second", "release", "f2") as second:
        beside = unquote(second.comparison_path())
    assert alone.startswith(f"/experiments/{first.experiment_id}/runs")
    assert f'["{second.parent_id}","{first.parent_id}"]' in beside
