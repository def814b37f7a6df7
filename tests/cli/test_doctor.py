"""`qwen-core doctor`: targets, languages, exit codes, errors."""

import json
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from qwen_core.cli import _Group
from qwen_core.cli.doctor import doctor
from tests.tracking import doctor_runs


@pytest.fixture
def command():
    """The command within a group that shows errors as ours does."""
    group = _Group("qwen-core")
    group.add_command(doctor)
    return group


@pytest.fixture(autouse=True)
def _language(monkeypatch):
    for name in ("LC_ALL", "LC_MESSAGES", "LANG", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "en_GB.UTF-8")


def _history(folder: Path, run) -> str:
    file = folder / "history.jsonl"
    events = [
        {"step": step, curve.name: value}
        for curve in run.curves.values()
        for step, value in zip(curve.steps.tolist(), curve.values.tolist(), strict=True)
    ]
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    return str(file)


def _run(command: click.Command, *arguments: str):
    return CliRunner().invoke(command, ["doctor", *arguments], catch_exceptions=False)


def test_dot_is_diagnosed_and_only_strict_fails(command, tmp_path):
    file = _history(tmp_path, doctor_runs.evaluated_once_at_end(0))
    result = _run(command, file)
    assert result.exit_code == 0 and "evaluated_once_at_end" in result.stdout
    assert _run(command, file, "--strict").exit_code == 1
    healthy = _history(tmp_path, doctor_runs.healthy(0))
    result = _run(command, healthy, "--strict")
    assert result.exit_code == 0 and "No fault found" in result.stdout


def test_language_is_of_the_option_else_of_the_locale(command, tmp_path, monkeypatch):
    file = _history(tmp_path, doctor_runs.healthy(0))
    assert "未发现问题" in _run(command, file, "--lang", "zh").stdout
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    assert "未发现问题" in _run(command, file).stdout
    assert "No fault" in _run(command, file, "--lang", "en").stdout


def test_json_has_causes_with_figures(command, tmp_path):
    told = json.loads(_run(command, _history(tmp_path, doctor_runs.overfitting(0)), "--json").stdout)
    (run,) = told["runs"]
    assert [one["cause"] for one in run["diagnoses"]] == ["overfitting"] and not run["is_healthy"]
    assert 400 <= run["diagnoses"][0]["figures"]["step"] <= 650
    assert run["metrics"]["validation_loss"] == "validation/loss"


def test_metric_is_named_by_role_or_bare_and_refused_where_it_is_not(command, tmp_path):
    file = _history(tmp_path, doctor_runs.unexpected_name(0))
    assert "unexpected_name" in _run(command, file).stdout
    for given in ("validation_loss=figures/B", "figures/B"):
        assert "No fault" in _run(command, file, "--metric", given).stdout
    result = _run(command, file, "--metric", "figures/C")
    assert result.exit_code == 3 and "no metric 'figures/C'. It has: figures/B, train/" in result.stderr
    result = _run(command, file, "--metric", "val_los=figures/B")
    assert result.exit_code == 3 and "'val_los' is no role; roles are train_loss, validation_loss" in result.stderr


def test_tracking_server_is_taken_from_option_and_a_missing_run_is_told(command, mlflow_uri):
    result = _run(command, "0" * 32, "--tracking-uri", mlflow_uri)
    assert result.exit_code == 3 and "error: no run 000" in result.stderr and "--tracking-uri" in result.stderr


def test_ascii_terminal_gets_ascii(command, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["qwen_core.cli.doctor"], "_is_plain", lambda: True)  # the package has the command
    assert _run(command, _history(tmp_path, doctor_runs.evaluated_once_at_end(0))).stdout.isascii()


def test_roles_that_can_be_named_are_those_that_the_doctor_knows():
    from qwen_core.tracking.doctor.names import ROLES

    assert sys.modules["qwen_core.cli.doctor"]._ROLES == ROLES
