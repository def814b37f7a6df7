"""Inputs become an override; paths become absolute; faults are named."""

from pathlib import Path

import pytest
import yaml

from qwen_core.cli.options import new_run_key, recipe_address, with_inputs
from qwen_core.errors import InputError


def test_inputs_become_one_override_with_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a, b.txt").write_text("x")
    *before, last = with_inputs(["seed=1"], ["a, b.txt", "s3://bucket/x", "environment", "*.txt"])
    assert before == ["seed=1"]
    key, _, value = last.partition("=")
    assert key == "ingest.inputs"
    assert yaml.safe_load(value) == [
        str(tmp_path / "a, b.txt"),
        "s3://bucket/x",
        "environment",
        str(tmp_path / "*.txt"),
    ]


def test_all_missing_inputs_are_named_at_once():
    with pytest.raises(InputError, match=r"no/one.*no/two"):
        with_inputs([], ["no/one", "no/two", "bundled"])


def test_recipe_path_is_made_absolute_and_bundled_name_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipe_address("demo") == "demo"
    assert recipe_address("mine.yaml") == str(tmp_path / "mine.yaml")


def test_run_keys_differ_and_start_with_the_recipe():
    first, second = new_run_key("demo"), new_run_key("x/mine.yaml")
    assert first.startswith("demo-") and second.startswith("mine-") and first != new_run_key("demo")
