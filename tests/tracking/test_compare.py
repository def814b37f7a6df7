"""Two runs side by side: data, recipe, result; the same answer in the terminal, as JSON, and in MLflow."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow.tracking import MlflowClient

from qwen_core.artifacts import Store
from qwen_core.cli import main
from qwen_core.tracking.compare import compare
from qwen_core.tracking.compare_text import change, number, to_columns, to_markdown, verdict
from qwen_core.tracking.comparison import Row, Side
from qwen_core.tracking.headlines import headline_metrics, headline_params
from qwen_core.tracking.overview import CHANGE_TAG, MODEL_TAG, RIVAL_TAG, log_overview

sys.path.append(str(Path(__file__).parent))
from small_runs import make_both, register, tell


@pytest.fixture
def both(tmp_path):
    store, (_, monday), (_, tuesday) = make_both(tmp_path / "store")
    return store, Side("monday", "monday", monday), Side("tuesday", "tuesday", tuesday)


def rows_of(found, part):
    return {(row.stage, row.name): row for row in found if row.part == part}


def test_what_differs_in_data_recipe_and_result_is_told(both):
    store, monday, tuesday = both
    found = compare(monday, tuesday, store)
    funnel = rows_of(found.data, "funnel")
    assert (funnel["ingest", "came"].a, funnel["ingest", "came"].b) == (100, 150)
    assert funnel["ingest", "too_few_words"].ratio == 3.0
    assert rows_of(found.data, "languages")["ingest", "zh"].b == 600
    assert rows_of(found.data, "mix")["pack", "zh of web"].ratio == 3.0
    assert found.files == {"a": 2, "b": 2, "only_a_count": 1, "only_a": ["/in/a.txt"]} | {
        "only_b_count": 1,
        "only_b": ["/in/c.txt"],
    }
    assert [(one.key, one.a, one.b) for one in found.recipe if not one.key.endswith("content.key")] == [
        ("pretrain.learning_rate", "0.003", "0.002")
    ]
    held_out = rows_of(found.result, "held-out")
    assert held_out["evaluate", "dpo.bits_per_byte"].better == "b"
    assert held_out["evaluate", "dpo.bits_per_byte/language/en"].better == "a"
    assert held_out["evaluate", "dpo.preference_accuracy"].better == "b"
    training = rows_of(found.result, "training")
    assert training["pretrain", "validation/bits_per_byte"].a == pytest.approx(1.2)
    assert [curve.a[0] for curve in found.curves] == [(0, 3.2)] and "held-out documents" in found.notes[0]


def test_notes_tell_where_runs_are_not_held_against_the_same(both):
    store, monday, tuesday = both

    def side(one, digest, tokenizer):
        pack = one.manifests["pack"].model_copy(update={"details": {"heldout_digest": digest}})
        return replace(
            one, manifests={**one.manifests, "pack": pack, "tokenizer": pack.model_copy(update={"uri": tokenizer})}
        )

    assert compare(side(monday, "a", "t"), side(tuesday, "a", "t"), store).notes == []
    (note,) = compare(side(monday, "a", "t"), side(tuesday, "b", "t"), store).notes
    assert "held-out documents differ" in note
    (note,) = compare(side(monday, "a", "t"), side(tuesday, "a", "u"), store).notes
    assert "tokenizers differ" in note


@pytest.mark.parametrize(
    ("a", "b", "name", "told"),
    [
        (2.0, 1.0, "dpo.bits_per_byte", "↓ 50.0% better"),
        (0.5, 0.6, "dpo.preference_accuracy", "↑ 20.0% better"),
        (1.0, 2.0, "sft.answer_loss", "↑ 100.0% worse"),
        (1.0, 1.0, "sft.answer_loss", "="),
        (1.0, 500.0, "steps", "↑ ×500"),
        (0.0, 3.0, "steps", "↑"),
        (None, 3.0, "steps", "new"),
        (3.0, None, "steps", "gone"),
    ],
)
def test_a_change_has_an_arrow_a_size_and_a_verdict(a, b, name, told):
    from qwen_core.tracking.compare import _row

    row = _row("held-out", "evaluate", name, a, b)
    assert f"{change(row)} {verdict(row)}".strip() == told


def test_figures_read_well():
    assert [number(v) for v in (None, 3.0, 12345.0, 0.12345, 12345.6)] == ["–", "3", "12,345", "0.1235", "12,345.6"]


def test_markdown_and_table_hold_the_same_rows(both):
    store, monday, tuesday = both
    found = compare(monday, tuesday, store)
    text = to_markdown(found)
    assert "| `pretrain.learning_rate` | `0.003` | `0.002` |" in text
    assert "| dpo bits per byte, zh | 1.3 | 1.16 | ↓ 10.8% better |" in text and "1 new, 1 gone" in text
    columns = to_columns(found)
    assert {len(values) for values in columns.values()} == {len(columns["about"])}
    assert {"recipe", "result", "data: funnel", "data: mix", "data: files"} <= set(columns["about"])


def test_a_run_that_is_not_finished_is_compared_as_far_as_it_goes(both):
    store, monday, _ = both
    half = Side("half", "half", {name: monday.manifests[name] for name in ("ingest", "pack")})
    found = compare(monday, half, store)
    assert found.shared == ["ingest", "pack"] and not found.recipe
    assert "run 'half' has no pretrain, evaluate, release" in found.notes[0]
    assert all(row.is_same for row in found.data)
    assert not compare(Side("", "", {}), Side("", "", {}), store).data


def test_equal_rows_are_equal_even_as_nan_free_floats():
    assert Row("mix", "pack", "x", 0.1 + 0.2, 0.3).is_same and not Row("mix", "pack", "x", None, 0.0).is_same


def test_the_parent_shows_what_tells_runs_apart():
    assert headline_params({"seed": 42, "pretrain.max_steps": 7, "filter.min_quality_score": 0.1}) == {
        "seed": 42,
        "pretrain.max_steps": 7,
    }
    figures = {"rows": 5, "tokens": 0, "seconds": 2.0, "dropped.short": 3, "files": 2, "parts": 1}
    assert headline_metrics("ingest", figures) == {
        "data/documents": 5,
        "data/source_files": 2,
        "data/dropped/ingest/short": 3,
        "time/ingest_seconds": 2.0,
    }
    told = {"dpo.bits_per_byte/language/zh": 1.0, "sft.answer_loss": 2.0, "dpo.bits_per_byte/source/web": 3.0}
    assert headline_metrics("evaluate", told) == {"result/bits_per_byte/zh": 1.0, "result/sft/answer_loss": 2.0}


@pytest.fixture
def told(tmp_path, mlflow_uri):
    """Both runs in MLflow and in its registry."""
    store, monday, tuesday = make_both(tmp_path / "store")
    client = MlflowClient(mlflow_uri)
    handles = []
    for version, key, (recipe, made) in (("1", "monday", monday), ("2", "tuesday", tuesday)):
        register(client, store, key, made, version)
        handles.append(tell(mlflow_uri, store, key, recipe, made))
    client.set_registered_model_alias("small", "champion", "1")
    return store, client, handles, mlflow_uri


def test_opening_the_run_shows_how_it_differs_from_the_one_before(told):
    store, client, (first, second), _ = told
    log_overview(first, store, "monday")
    log_overview(second, store, "tuesday")
    parent = client.get_run(second.parent_id)
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("**Against monday (small/1)**: dpo bits per byte 1.2 → 1.14 (↓ 5.0% better)")
    assert "`pretrain.learning_rate` 0.003 → 0.002" in note and len(note) < 8000
    assert parent.data.tags[MODEL_TAG] == "small/2" and parent.data.tags[RIVAL_TAG] == "monday"
    assert "dpo bits per byte ↓ 5.0% better" in parent.data.tags[CHANGE_TAG]
    assert {one.path for one in client.list_artifacts(second.parent_id)} == {
        *("recipe.yaml", "tables", "plots", "comparison.md")
    }
    # the page shows a param of both runs, though one of them has it by default
    both = [client.get_run(run.parent_id).data.params["pretrain.learning_rate"] for run in (first, second)]
    assert both == ["0.003", "0.002"]
    assert "first run of this recipe" in client.get_run(first.parent_id).data.tags["mlflow.note.content"]


def asked(store, uri, *arguments):
    given = [*arguments, "--store", store.root, "--tracking-uri", uri]
    return CliRunner().invoke(main, given)


def test_commands_give_the_same_answer(told):
    store, client, _, uri = told
    client.set_registered_model_alias("small", "challenger", "2")
    answer = asked(store, uri, "compare", "small@champion", "small@challenger")
    assert "A  monday (small/1, champion)" in answer.output and "0.002" in answer.output, answer.output
    answer = json.loads(asked(store, uri, "compare", "monday", "small", "--json").output)
    assert answer["b"] == "tuesday (small/2, challenger)"
    assert {"key": "pretrain.learning_rate", "a": "0.003", "b": "0.002"} in answer["recipe"]
    (row,) = [row for row in answer["result"] if row["name"] == "dpo.bits_per_byte"]
    assert row["ratio"] == pytest.approx(0.95) and row["better"] == "b"
    answer = json.loads(asked(store, uri, "runs", "--json").output)
    assert [(one["run_key"], one["state"], one["version"], one["aliases"]) for one in answer] == [
        ("tuesday", "finished", "small/2", ["challenger"]),
        ("monday", "finished", "small/1", ["champion"]),
    ]
    assert answer[0]["tokens"] == 7000 and answer[0]["bits_per_byte"] == 1.14
    assert "no such pipeline run" in asked(store, uri, "runs", "--state", "failed").output
    assert "monday" not in asked(store, uri, "runs", "--limit", "1").output


@pytest.mark.parametrize(
    ("named", "message"),
    [("nobody", "is no run key"), ("small@nobody", "is no run key"), ("f" * 32, "is no run key"), ("small/9", "is no")],
)
def test_an_unknown_name_is_a_clear_error(told, named, message):
    store, _, _, uri = told
    answer = asked(store, uri, "compare", "monday", named)
    assert answer.exit_code == 3 and message in answer.output and "qwen-core runs" in answer.output


def test_mlflow_that_does_not_answer_is_a_clear_error(tmp_path):
    answer = asked(Store(str(tmp_path)), "http://127.0.0.1:9", "runs")
    assert answer.exit_code == 5 and "MLflow does not answer" in answer.output and "--tracking-uri" in answer.output


def test_lineage_leads_back_to_files_and_forward_to_versions(told):
    store, _, _, uri = told
    answer = asked(store, uri, "lineage", "small@champion")
    assert "/in/a.txt" in answer.output and "release" in answer.output and "/in/c.txt" not in answer.output
    told_back = json.loads(asked(store, uri, "lineage", "small/2", "--json").output)
    files = [one["path"] for artifact in told_back["artifacts"] for one in artifact["files"]]
    assert {"/in/b.txt", "/in/c.txt"} <= set(files)
    for name, versions in (("in/a.txt", ["small/1"]), ("/in/b.txt", ["small/1", "small/2"]), ("tuesday", ["small/2"])):
        forward = json.loads(asked(store, uri, "lineage", name, "--forward", "--json").output)
        assert forward["versions"] == versions, name
    answer = asked(store, uri, "lineage", "/in/unknown", "--forward")
    assert answer.exit_code == 3 and "nothing in" in answer.output


@pytest.mark.slow  # runs `mlflow gc` in a process of its own
def test_gc_shows_first_and_does_it_when_it_is_meant(told):
    store, client, _, uri = told
    everything = ("gc", "--keep-last", "0", "--keep-days", "0", "--min-age", "0")
    answer = asked(store, uri, *everything, "--stale-days", "0")
    assert "nothing to clear away" in answer.output  # both versions are registered
    answer = asked(store, uri, *everything, "--drop-versions")
    assert "nothing was touched" in answer.output and "1 version" in answer.output and len(store.of_run("tuesday")) == 5
    done = json.loads(asked(store, uri, *everything, "--drop-versions", "--yes", "--json").output)
    assert done["done"]["counts"]["version"] == 1 and not store.of_run("tuesday") and len(store.of_run("monday")) == 5
    assert [str(one.version) for one in client.search_model_versions("name='small'")] == ["1"]
    answer = json.loads(asked(store, uri, "runs", "--json").output)
    assert [one["run_key"] for one in answer] == ["monday"]
    assert "nothing to clear away" in asked(store, uri, *everything, "--drop-versions").output
