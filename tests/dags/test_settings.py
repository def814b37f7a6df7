"""Settings of a run: from form, event or plan; checked before a job starts; on the command line."""

import datetime
import logging
import shlex
from types import SimpleNamespace

import pytest

pytest.importorskip("airflow")
from airflow.sdk.exceptions import AirflowFailException

from operators.settings import check_settings, command_line, event_of, refuse_without_run, settings_of
from qwen_core.config import load_recipe

LOG = logging.getLogger(__name__)
DAY = datetime.datetime(2026, 1, 5, tzinfo=datetime.UTC)


def test_form_becomes_overrides_and_a_run_key_that_a_rerun_finds_again(make_context):
    params = {"overrides": ["seed=7"], "inputs": ["s3://raw/文.txt", "b c"], "approval": True}
    context = make_context(params)
    found = settings_of(context)
    assert found == settings_of(make_context(params))
    assert found["run_key"] == "manual__2026-02-01T10-00-00-00-00_x"
    recipe = load_recipe(found["recipe"], found["overrides"])
    assert recipe.ingest.inputs == ("s3://raw/文.txt", "b c") and recipe.release.approval and recipe.seed == 7


def test_path_of_ones_own_goes_before_the_choice(make_context):
    assert settings_of(make_context({"recipe_path": "/r/mine.yaml"}))["recipe"] == "/r/mine.yaml"


def test_run_key_is_the_forms_or_the_partition(make_context):
    assert settings_of(make_context({"run_key": "k1"}))["run_key"] == "k1"
    assert settings_of(make_context() | {"partition_key": "p1"})["run_key"] == "p1"


def test_asset_event_goes_before_the_form(make_context):
    told = {"recipe": "qwen3-0.6b", "overrides": ["seed=1"], "run_key": "k", "rows": 5}
    events = {"a": [SimpleNamespace(extra={}), SimpleNamespace(extra=told)]}
    assert settings_of(make_context(events=events)) == {
        **{"recipe": "qwen3-0.6b", "overrides": ["seed=1"], "run_key": "k", "date": None}
    }


@pytest.mark.parametrize(
    ("run", "date"),
    [
        ({"run_type": "manual"}, None),
        ({"run_type": "manual", "params": {"date": "2026-01-09"}}, "2026-01-09"),
        ({"run_type": "scheduled", "data_interval_start": DAY, "logical_date": DAY}, "2026-01-05"),
        ({"run_type": "backfill", "logical_date": DAY}, "2026-01-05"),
        ({"run_type": "asset_triggered"}, "2026-02-01"),
    ],
)
def test_date_is_the_day_at_which_the_runs_data_begin(make_context, run, date):
    assert settings_of(make_context(**run))["date"] == date


def test_faults_of_a_recipe_are_all_told_before_a_job_starts():
    settings = {"recipe": "demo", "overrides": ["pretrain.max_step=5", "dedup.num_buckets=x"]}
    with pytest.raises(AirflowFailException) as raised:
        check_settings(settings, LOG)
    text = str(raised.value)
    assert "pretrain.max_step: unknown key; did you mean 'max_steps'?" in text and "dedup.num_buckets" in text
    assert text.splitlines()[-1] == "No job was started. Mend the recipe or the overrides."


def test_recipe_that_only_the_cluster_can_read_is_left_to_the_job(caplog):
    with caplog.at_level(logging.INFO):
        check_settings({"recipe": "/nowhere/mine.yaml", "overrides": []}, LOG)
    assert "its job on the Ray cluster will check it" in caplog.text


def test_recipe_of_ones_own_is_checked_where_it_can_be_read(tmp_path):
    (tmp_path / "mine.yaml").write_text("pretrian: {}\n")
    with pytest.raises(AirflowFailException, match="did you mean 'pretrain'"):
        check_settings({"recipe": str(tmp_path / "mine.yaml"), "overrides": []}, LOG)


def test_command_line_keeps_odd_words_whole():
    settings = {
        "recipe": "/a b/r.yaml",
        "overrides": ["ingest.inputs=['x y', \"z\"]"],
        "run_key": "k",
        "date": "2026-01-05",
    }
    shell, *words = shlex.split(command_line(["qwen_core.jobs", "ingest"], settings))
    assert shell == "exec" and words[:4] == ["python", "-m", "qwen_core.jobs", "ingest"]
    assert words[words.index("--recipe") + 1] == "/a b/r.yaml"
    assert words[words.index("--set") + 1] == "ingest.inputs=['x y', \"z\"]"
    assert words[words.index("--date") + 1] == "2026-01-05"


def test_event_tells_plain_figures_and_never_loses_the_settings():
    settings = {"recipe": "demo", "overrides": [], "run_key": "k", "date": None}
    told = event_of(settings, {"rows": 3, "bits_per_byte": 1.5, "checks": [{}], "run_key": "other"})
    assert told == {**settings, "rows": 3, "bits_per_byte": 1.5}


def test_chain_is_not_begun_in_its_middle_without_a_run(make_context):
    with pytest.raises(AirflowFailException, match="'align' goes on from an earlier run: give its run key"):
        refuse_without_run(make_context(), "align")
    refuse_without_run(make_context({"run_key": "k"}), "align")
    refuse_without_run(make_context(events={"pretrain": [SimpleNamespace(extra={"run_key": "k"})]}), "align")
