"""`qwen-core retrain --plan`, `promote` and `rollback`, on a home of their own."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from qwen_core.cli import main
from qwen_core.config import Recipe
from qwen_core.config.tokens import Pack
from tests.jobs.retraining import NAME, register, write_day

TINY = str(Path(__file__).parents[1] / "recipes" / "tiny.yaml")


@pytest.fixture
def invoke(tmp_path, mlflow_uri, monkeypatch):
    monkeypatch.setattr("qwen_core.platform.Platform.tracking_uri", mlflow_uri)

    def run(*arguments):
        return CliRunner().invoke(main, [*arguments, "--home", str(tmp_path / "home")])

    return run


def test_a_plan_is_told_and_nothing_is_run(invoke, tmp_path):
    write_day(tmp_path / "days", "one")
    given = ("retrain", "--plan", "--recipe", TINY, "--input", str(tmp_path / "days"), "--run-key", "k")
    told = invoke(*given)
    assert told.exit_code == 0 and "no corpus yet: 1 new file" in told.output and "run key  k" in told.output
    result = json.loads(invoke(*given, "--json", "--approval").output)
    assert result["run_key"] == "k" and "release.approval=true" in result["overrides"]
    assert not list((tmp_path / "home" / "artifacts").rglob("*.json"))


def test_nothing_to_do_is_exit_code_nine_with_the_reason(invoke, tmp_path):
    given = ("retrain", "--plan", "--recipe", TINY, "--date", "2026-01-31", "--json")
    told = invoke(*given, "--input", f"{tmp_path}/{{date}}.jsonl")
    assert told.exit_code == 9
    answer = json.loads(told.output)
    assert answer["run_key"] is None and "2026-01-31.jsonl" in answer["reason"]


def test_a_person_promotes_and_rolls_back_by_command(invoke, mlflow_uri):
    register(mlflow_uri, [{}, {"gate": "refused", "gate_reason": "worse"}])
    place = ("--tracking-uri", mlflow_uri)
    assert "champion; there was none before" in invoke("promote", NAME, "1", *place).output
    refused = invoke("promote", NAME, "2", *place)
    assert refused.exit_code == 3 and "--force" in refused.output
    assert (
        json.loads(invoke("promote", NAME, "2", "--force", "--why", "so", "--json", *place).output)["previous"] == "1"
    )
    back = json.loads(invoke("rollback", NAME, "--json", *place).output)
    assert (back["version"], back["action"], back["changed"]) == ("1", "rollback", True)
    assert invoke("rollback", NAME, *place).exit_code == 3


def test_keys_that_came_later_shape_a_fingerprint_only_when_they_are_used():
    assert "heldout_from" not in Pack().shaping() and "new_weight" not in Pack().shaping()
    assert Pack(heldout_from="run").shaping()["heldout_from"] == "run"
    plain, changed = Recipe(), Recipe(pretrain={"continued": {"steps_ratio": 0.5}})
    assert "continued" not in plain.pretrain.shaping()
    assert changed.pretrain.shaping()["continued"]["steps_ratio"] == 0.5
    assert "keep_from" not in plain.tokenizer.shaping() and "keep" not in plain.dedup.shaping()
