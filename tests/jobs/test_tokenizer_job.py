"""The tokenizer's stage: what is sampled, what is held out, training and import, the same whatever the blocks."""

import types

import numpy as np
import pyarrow as pa
import pytest
import ray

from qwen_core.config import Recipe
from qwen_core.data.mix import draws, is_below
from qwen_core.jobs import tokenizer as job
from qwen_core.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from tests.jobs.corpus_files import context, documents, write_files


def taken_of(table, rates, heldout=0.1, max_measured=1000):
    cells = {(language, source) for language in ("en", "zh", "code") for source in ("web", "books")}
    return job.sampled(
        table,
        rates={cell: rates.get(cell[0], 1.0) for cell in cells},
        heldout=dict.fromkeys(("en", "zh", "code"), heldout),
        max_measured=max_measured,
        seed=3,
    )


def test_each_language_is_taken_at_its_rate_and_never_for_both_uses():
    table = documents(3000)
    taken = taken_of(table, {"en": 0.5, "zh": 2.0, "code": 0.0})
    is_measured = taken["draw"].is_valid().to_numpy()
    languages = np.array(taken["language"].to_pylist())
    count = dict(zip(*np.unique(languages[~is_measured], return_counts=True), strict=True))
    assert count["en"] == pytest.approx(450, rel=0.1) and count["zh"] == pytest.approx(1800, rel=0.1)
    assert "code" not in count and is_measured.sum() == pytest.approx(300, rel=0.2)
    held = {draw for draw in taken["draw"].to_pylist() if draw is not None}
    own = draws(table["id"], 3, "heldout")
    assert held == set(own[is_below(own, 0.1)].tolist())  # as pack holds them out


def test_only_the_lowest_draws_of_a_language_are_sent_for_measuring():
    table = documents(3000)
    few, all_ = taken_of(table, {}, max_measured=5), taken_of(table, {})
    for language in ("en", "zh", "code"):
        kept, whole = (
            sorted(row["draw"] for row in rows.to_pylist() if row["language"] == language and row["draw"] is not None)
            for rows in (few, all_)
        )
        assert kept == whole[:5]


def test_a_small_language_gives_more_of_itself_for_measuring():
    sizes = {("en", "web"): (10_000, 1), ("zh", "web"): (150, 1), ("zh", "books"): (50, 1), ("de", "web"): (3, 1)}
    assert job.heldout_shares(sizes, 0.02) == {"en": 0.02, "zh": 0.1, "de": 0.2}


def run_job(tmp_path, monkeypatch, paths, kept=None, **section):
    monkeypatch.setattr(job, "document_files", lambda manifest: paths)
    recipe = Recipe(seed=3, tokenizer={"vocab_size": 330, "max_sample_bytes": 100_000, **section})
    if not ray.is_initialized():
        ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    given = context("tokenizer", tmp_path, recipe, paths)
    given.store = types.SimpleNamespace(load=lambda uri: kept)
    given.run = types.SimpleNamespace(set_tags=lambda tags: None)
    outcome = job.run(given)
    return outcome, (tmp_path / "tokenizer" / "tokenizer" / "tokenizer.json").read_bytes()


@pytest.mark.slow
@pytest.mark.ray
def test_training_and_measures_do_not_depend_on_the_files_and_an_import_is_measured_alike(tmp_path, monkeypatch):
    try:
        table = documents(4000)
        whole = write_files(table, tmp_path / "one", 1)
        shuffled = table.take(pa.array(np.random.default_rng(0).permutation(4000)))
        parts = write_files(shuffled, tmp_path / "five", 5)
        first, second = (run_job(tmp_path / name, monkeypatch, paths) for name, paths in (("a", whole), ("b", parts)))
        assert first == second
        outcome = first[0]
        assert outcome.details["sample_bytes"] == pytest.approx(100_000, rel=0.1)
        assert {row["language"] for row in outcome.details["measures"]} == {"en", "zh", "code"}
        assert all(row["documents"] >= 10 for row in outcome.details["measures"])
        own = tmp_path / "own"
        save_tokenizer(train_tokenizer(iter([["河水流向大海"] * 9]), 300, 2), own)
        imported, _ = run_job(tmp_path / "c", monkeypatch, parts, import_path=str(own))
        assert imported.rows == load_tokenizer(own).vocab_size and imported.details["sample"] == []
        assert imported.metrics.keys() == outcome.metrics.keys()
    finally:
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.ray
def test_a_tokenizer_is_kept_until_it_has_drifted(tmp_path, monkeypatch):
    try:
        table = documents(2000)
        trained, content = run_job(tmp_path / "a", monkeypatch, write_files(table, tmp_path / "one", 2))
        uri = "x/manifest.json"
        place = tmp_path / "a" / "tokenizer"
        kept = types.SimpleNamespace(
            stage="tokenizer", uri=uri, details={}, metrics=trained.metrics, path=lambda name: f"{place}/{name}"
        )
        grown = write_files(pa.concat_tables([table, documents(500, seed=2)]), tmp_path / "two", 2)
        same, again = run_job(tmp_path / "b", monkeypatch, grown, kept, keep_from=uri)
        assert again == content and same.details["kept"] and same.metrics["kept"] == 1
        assert abs(same.metrics["drift_ratio"]) < 0.05 and set(same.details["drift"]) == {"en", "zh", "code"}
        assert same.details["baseline"]["trained_by"] == uri and same.details["sample"] == []
        strange = pa.array(["".join(reversed(text.upper())) for text in table["text"].to_pylist()])
        other = write_files(table.set_column(1, "text", strange), tmp_path / "three", 2)
        renewed, new = run_job(tmp_path / "c", monkeypatch, other, kept, keep_from=uri)
        assert new != content and not renewed.details["kept"] and renewed.metrics["drift_ratio"] > 0.05
        assert renewed.details["decision"].startswith("renewed: +") and renewed.details["sample"]
        assert renewed.metrics["bytes_per_token/en"] > 1
        assert "baseline" not in renewed.details  # of the new one, its own figures are
    finally:
        ray.shutdown()
