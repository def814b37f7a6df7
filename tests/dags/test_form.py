"""The trigger forms: what Airflow offers, and what it refuses at trigger time."""

import copy
import importlib

import pytest

pytest.importorskip("airflow")

from qwen_core.config import bundled_recipes


@pytest.fixture
def params():
    return _params("corpus")


def _params(dag_id):
    return copy.deepcopy(importlib.import_module(f"dags.{dag_id}").dag.params)


def test_recipe_is_a_choice_of_the_bundled_ones(params):
    assert params.get_param("recipe").schema["enum"] == bundled_recipes()
    assert list(params) == ["recipe", "recipe_path", "overrides", "inputs", "date", "approval", "run_key"]
    for name in params:
        schema = params.get_param(name).schema
        assert schema["title"] and schema["description_md"]
    assert {name for name in params if "section" in params.get_param(name).schema} == {"date", "run_key"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("recipe", "qwen9", "is not one of"),
        ("recipe_path", "mine.txt", "does not match"),
        ("overrides", "seed=1", "is not of type"),
        ("overrides", ["pretrain.max_steps 500"], "does not match"),
        ("overrides", ["pretrain..max_steps=500"], "does not match"),
        ("overrides", ["=5"], "does not match"),
        ("inputs", [""], "should be non-empty"),
        ("date", "31.01.2026", "is not a 'date'"),
        ("approval", "yes", "is not of type"),
        ("run_key", "../etc", "does not match"),
        ("run_key", "a" * 201, "does not match"),
    ],
)
def test_bad_value_is_refused_at_trigger_time(params, name, value, message):
    with pytest.raises(Exception, match=message):
        params[name] = value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recipe_path", "/recipes/mine.yml"),
        ("overrides", ["seed=1", "ingest.min_language_score.*=0.5", "ingest.inputs=[a, b]"]),
        ("inputs", ["s3://raw/{date}/*.warc.gz"]),
        ("date", "2026-01-31"),
        ("run_key", "demo-20260131-101500-9f3a"),
        ("run_key", None),
    ],
)
def test_good_value_is_taken(params, name, value):
    params[name] = value
    assert params[name] == value


@pytest.mark.parametrize(("name", "value"), [("model_name", "../x"), ("version", 0), ("version", "two")])
def test_rollback_refuses_what_no_registry_has(name, value):
    with pytest.raises(Exception, match=r"does not match|less than|not of type"):
        _params("rollback")[name] = value
