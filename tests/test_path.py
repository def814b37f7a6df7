"""The whole path on a local Ray: every stage, then again, then a broken input."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow.tracking import MlflowClient

from qwen_core.artifacts import Store
from qwen_core.cli import main
from qwen_core.stages import STAGES

TINY = str(Path(__file__).parent / "recipes" / "tiny.yaml")
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def first_run(home):
    """All stages through `qwen-core stage all`."""
    result = CliRunner().invoke(
        main, ["stage", "all", "--recipe", TINY, "--run-key", "first", "--home", str(home)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return Store(str(home / "artifacts")).of_run("first")


def test_every_stage_leaves_a_manifest_with_lineage_to_the_sources(first_run):
    assert list(first_run) == list(STAGES)
    for name, manifest in first_run.items():
        assert list(manifest.inputs) == list(STAGES[name].inputs)
        assert manifest.files, name
        assert manifest.mlflow_run_id
    assert first_run["ingest"].sources and first_run["instruct"].sources


def test_corpus_counts_add_up_from_stage_to_stage(first_run):
    for before, after in (("ingest", "filter"), ("filter", "dedup")):
        kept = first_run[after]
        assert kept.rows + sum(kept.drops.values()) == first_run[before].rows
    assert first_run["dedup"].rows >= 200  # the bundled documents are good and distinct


def test_training_lowers_the_loss_and_leaves_a_curve_of_ten_points(first_run):
    figures = first_run["pretrain"].metrics
    assert figures["last_validation_bits_per_byte"] < figures["first_validation_bits_per_byte"]
    client = MlflowClient(f"sqlite:///{Path(first_run['pretrain'].uri).parents[3]}/mlflow/mlflow.db")
    history = client.get_metric_history(first_run["pretrain"].mlflow_run_id, "validation/bits_per_byte")
    steps = [point.step for point in history]
    assert len(steps) >= 10 and steps[0] == 0 and steps[-1] == 12 and steps == sorted(set(steps))


def test_released_model_is_registered_and_champion(first_run):
    details = first_run["release"].details
    assert details["aliases"] == ["challenger", "champion"]
    samples = {sample["name"] for sample in first_run["evaluate"].details["samples"]}
    assert samples == {"zh", "en", "code"}


def test_second_run_reuses_every_stage(first_run, home):
    arguments = ["stage", "all", "--recipe", TINY, "--run-key", "second", "--home", str(home)]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.output.count("already done") == len(STAGES)
    second = Store(str(home / "artifacts")).of_run("second")
    assert {name: m.uri for name, m in second.items()} == {name: m.uri for name, m in first_run.items()}


def test_chat_answers_from_the_released_model(first_run, home):
    result = CliRunner().invoke(main, ["chat", "--home", str(home), "--max-new-tokens", "4", "Hello?"])
    assert result.exit_code == 0, result.output


def test_summary_tells_documents_losses_and_samples(first_run, home):
    result = CliRunner().invoke(main, ["summary", "first", "--home", str(home)])
    assert result.exit_code == 0, result.output
    for words in ("Documents", "Training", "preference accuracy", "[zh]", "[en]", "[code]", "Registry"):
        assert words in result.output
    as_json = CliRunner().invoke(main, ["summary", "first", "--json", "--home", str(home)])
    assert list(json.loads(as_json.output)) == list(STAGES)


def test_missing_input_is_named_with_exit_code_three(home):
    result = CliRunner().invoke(main, ["stage", "ingest", "--input", "no/such", "--home", str(home)])
    assert result.exit_code == 3
    assert "no/such" in result.output


def test_stage_that_drops_everything_tells_why_and_what_to_do(first_run, home):
    arguments = ["--recipe", TINY, "--run-key", "first", "--home", str(home), "--set", "filter.languages=[xx]"]
    result = CliRunner().invoke(main, ["stage", "filter", *arguments])
    assert result.exit_code == 3
    assert "every document was dropped" in result.output and "language" in result.output
    assert "Loosen the recipe's filter section" in result.output
