"""`qwen-core chat`: which model it takes, and one question."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from qwen_core.artifacts import Store
from qwen_core.cli.chat import chat, model_folder_of
from qwen_core.config import Recipe
from qwen_core.errors import ArtifactError
from qwen_core.jobs.imported import import_model
from tests.jobs.models import model_folder


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs with a model each; the second is the newer one."""
    monkeypatch.chdir(tmp_path)
    store = Store(str(tmp_path / "home" / "artifacts"))
    made = {}
    for number, key in enumerate(("first", "second")):
        model_folder(tmp_path / f"of_{key}", initializer_range=0.02 + number)
        made[key] = import_model(str(tmp_path / f"of_{key}"), Recipe(), key, store)["pretrain"]
        aged = made[key].model_copy(update={"created_at": f"2026-01-0{number + 1}T00:00:00+00:00"})
        Path(aged.uri).write_text(aged.model_dump_json())
    return made


def test_a_model_is_named_by_run_or_manifest_or_is_the_newest(runs):
    places = {key: manifest.path("model") for key, manifest in runs.items()}
    assert model_folder_of("home", None, "first") == places["first"]
    assert model_folder_of("home", "first", "second") == places["first"]
    assert model_folder_of("home", runs["first"].uri, None) == places["first"]
    assert model_folder_of("home", None, None) == places["second"]
    with pytest.raises(ArtifactError, match="no model in run 'third'"):
        model_folder_of("home", None, "third")
    with pytest.raises(ArtifactError, match="'third' is no model"):
        model_folder_of("home", "third", None)


def test_a_folder_needs_no_platform(runs):
    assert model_folder_of("nowhere", "of_first", "second") == "of_first"
    assert not Path("nowhere").exists()
    with pytest.raises(ArtifactError, match=r"no model in .*Make one with: qwen-core run"):
        model_folder_of("nowhere", None, None)


def test_a_question_is_answered_and_the_end_comes(runs):
    done = CliRunner().invoke(chat, ["河?", "--model", "of_first", "--max-new-tokens", "3"], catch_exceptions=False)
    assert done.exit_code == 0 and done.output.endswith("\n")
