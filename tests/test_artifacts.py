"""The store: commit by manifest, fingerprints, losers cleared, run pointers."""

import shutil
from pathlib import Path

import pytest

from qwen_core.artifacts import Outcome, Store, config_of, fingerprint_of, local_copy
from qwen_core.config import load_recipe
from qwen_core.errors import ArtifactError
from qwen_core.stages import STAGES


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture
def recipe():
    return load_recipe("demo")


def _write(store, attempt, name="part.txt", text="hello"):
    store.write(f"{attempt.data_uri}/{name}", text)


def test_artifact_is_invisible_until_its_manifest_is_written(store, recipe):
    attempt = store.begin(STAGES["ingest"], recipe, "key", {}, {"a": "1"})
    _write(store, attempt)
    assert store.find("ingest", attempt.fingerprint) is None
    manifest = store.commit(attempt, Outcome(rows=1, drops={"empty": 2}), 1.5, None)
    assert store.find("ingest", attempt.fingerprint) == manifest
    assert manifest.files == {"part.txt": 5} and manifest.bytes == 5 and manifest.drops == {"empty": 2}


def test_second_attempt_that_comes_late_gives_way_to_the_first(store, recipe):
    first, second = (store.begin(STAGES["ingest"], recipe, "key", {}, {}) for _ in range(2))
    assert first.fingerprint == second.fingerprint and first.data_uri != second.data_uri
    _write(store, first, text="first")
    winner = store.commit(first, Outcome(), 1.0, None)
    _write(store, second, text="second")
    assert store.commit(second, Outcome(), 1.0, None) == winner
    assert list(store.files(second.data_uri)) == []


def test_commit_clears_what_a_crashed_attempt_left(store, recipe):
    crashed, good = (store.begin(STAGES["ingest"], recipe, "key", {}, {}) for _ in range(2))
    _write(store, crashed)
    store.write(f"{crashed.state_uri}/checkpoint", "x")
    _write(store, good)
    store.commit(good, Outcome(), 1.0, None)
    assert list(store.files(crashed.data_uri)) == [] and list(store.files(good.state_uri)) == []
    assert dict(store.files(good.data_uri)) == {"part.txt": 5}


def test_fingerprint_follows_own_section_inputs_and_sources_only(recipe):
    dedup = STAGES["dedup"]
    base = fingerprint_of(dedup, config_of(dedup, recipe), {"filter": "f"}, {})
    other = load_recipe("demo", ["pretrain.max_steps=9"])
    assert fingerprint_of(dedup, config_of(dedup, other), {"filter": "f"}, {}) == base
    changed = load_recipe("demo", ["dedup.num_buckets=9"])
    assert fingerprint_of(dedup, config_of(dedup, changed), {"filter": "f"}, {}) != base
    assert fingerprint_of(dedup, config_of(dedup, recipe), {"filter": "g"}, {}) != base
    assert fingerprint_of(dedup, config_of(dedup, recipe), {"filter": "f"}, {"x": "1"}) != base


def test_fingerprint_is_blind_to_how_the_work_is_spread_and_watched(recipe):
    pretrain = STAGES["pretrain"]
    base = config_of(pretrain, recipe)
    other = {"parallel.num_workers": 4, "pretrain.max_failures": 9, "pretrain.guards.profile_steps": [1, 2]}
    for key, value in other.items():
        assert config_of(pretrain, load_recipe("demo", [f"{key}={value}"])) == base, key
    for key, value in {"pretrain.max_steps": 7, "pretrain.guards.spike_score": 9}.items():
        assert config_of(pretrain, load_recipe("demo", [f"{key}={value}"])) != base, key


def test_run_points_to_its_artifacts_in_running_order(store, recipe):
    ingest = store.commit(store.begin(STAGES["ingest"], recipe, "key", {}, {}), Outcome(), 1.0, None)
    classifiers = store.commit(
        store.begin(STAGES["classifiers"], recipe, "key", {"ingest": ingest}, {}), Outcome(), 1.0, None
    )
    store.point("key", classifiers)
    store.point("key", ingest)
    assert list(store.of_run("key")) == ["ingest", "classifiers"]
    assert store.of_run("key")["classifiers"].inputs == {"ingest": ingest.uri}
    assert store.of_run("other") == {}
    shutil.rmtree(Path(ingest.uri).parent)
    assert list(store.of_run("key")) == ["classifiers"]  # deleted to be made anew


def test_missing_manifest_and_foreign_uri_are_named(store, tmp_path):
    with pytest.raises(ArtifactError, match="was deleted"):
        store.load(f"{store.root}/ingest/abc/manifest.json")
    with pytest.raises(ArtifactError, match="outside of the store"):
        list(store.files(str(tmp_path / "elsewhere")))


def test_what_is_brought_from_a_store_is_whole_and_leaves_nothing_else_behind(tmp_path, monkeypatch):
    (tmp_path / "far/folder").mkdir(parents=True)
    (tmp_path / "far/folder/a.txt").write_text("one")
    (tmp_path / "near").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "near"))
    uri = (tmp_path / "far/folder").as_uri()
    brought = Path(local_copy(uri))
    assert (brought / "a.txt").read_text() == "one" and local_copy(uri) == str(brought)
    file = Path(local_copy((tmp_path / "far/folder/a.txt").as_uri()))
    assert file.read_text() == "one"
    with pytest.raises(OSError, match="missing"):
        local_copy((tmp_path / "far/missing").as_uri())
    assert sorted((tmp_path / "near").iterdir()) == sorted([brought, file])
