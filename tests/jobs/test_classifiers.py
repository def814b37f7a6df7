"""The classifiers' stage: what it learns from, what it reports, and which thresholds it finds."""

import json
import random
import types

import pytest

from qwen_core.config import Recipe
from qwen_core.data.classify import scores
from qwen_core.errors import InputError
from qwen_core.jobs import classifiers as job
from tests.jobs.corpus_files import documents, write_files


def _sentence(random_, good):
    words = "river sea sand water flows salt rain cloud" if good else "click buy now free login cart sale bonus"
    return " ".join(random_.choice(words.split()) for _ in range(random_.randint(6, 14)))


@pytest.fixture
def files(tmp_path):
    """Toxicity as a table with foreign column names, references as plain text, a corpus as Parquet."""
    random_ = random.Random(1)
    rows = [f"{int(n % 2)},{_sentence(random_, n % 2 == 0)}" for n in range(300)]
    (tmp_path / "comments.csv").write_text("\n".join(["class,body", *rows, "9,odd", "broken"]))
    (tmp_path / "books.txt").write_text("\n".join(_sentence(random_, True) for _ in range(200)))
    return tmp_path, write_files(documents(400), tmp_path / "documents", 3)


def _run(files, monkeypatch, **section):
    folder, paths = files
    monkeypatch.setattr(job, "document_files", lambda manifest: paths)
    mapped = {"text": "body", "label": "class", "labels": {"1": "toxic", "0": "clean"}, "fixed_language": "en"}
    given = {
        "quality_views": ["ngrams"],
        "toxicity_examples": [str(folder / "comments.csv")],
        "quality_examples": [],
        "quality_positives": [str(folder / "books.txt")],
        "quality_negatives": ["ingest"],
        "columns": {"comments.csv": mapped},
        **section,
    }
    figures = {}
    context = types.SimpleNamespace(
        section=Recipe(classifiers=given).classifiers,
        recipe=Recipe(classifiers=given),
        inputs={"ingest": None},
        attempt=types.SimpleNamespace(data_uri=str(folder / "out")),
        run=types.SimpleNamespace(log_figure=lambda figure, name: figures.update({name: figure})),
        progress=lambda *arguments, **more: None,
    )
    return job.run(context), folder / "out", figures


def test_both_classifiers_are_trained_measured_and_drawn(files, monkeypatch):
    outcome, out, figures = _run(files, monkeypatch)
    assert outcome.drops == {"unknown_label": 1, "broken_row": 1}
    assert outcome.metrics["toxicity.roc_auc"] > 0.99 and outcome.metrics["quality.roc_auc"] > 0.8
    assert {"toxicity.f1", "toxicity.average_precision", "toxicity.calibration_error"} <= set(outcome.metrics)
    assert outcome.metrics["toxicity.heldout_examples"] == 60
    assert set(figures) == {f"plots/{n}_{k}.png" for n in ("quality", "toxicity") for k in ("roc", "reliability")}
    assert outcome.details["thresholds"] == {"quality": {}, "toxicity": {}}
    json.dumps(outcome.details, allow_nan=False)
    values = scores(str(out / "toxicity"), ["click buy free bonus now", "river sea sand rain water"], ["en", "en"])
    assert values[0] > 0.8 and values[1] < 0.2


def test_thresholds_follow_the_recipe_by_language(files, monkeypatch):
    outcome, out, _ = _run(files, monkeypatch, quality_keep_ratio=0.25, toxicity_target_precision=0.95)
    assert 0 < outcome.details["thresholds"]["toxicity"]["all"] < 1
    found = outcome.details["thresholds"]["quality"]
    assert {"all", "en", "zh"} == set(found)  # source code is not judged
    corpus = [row["text"] for row in documents(400).to_pylist() if row["language"] == "zh"]
    kept = (scores(str(out / "quality"), corpus, ["zh"] * len(corpus)) >= found["zh"]).mean()
    assert kept == pytest.approx(0.25, abs=0.12)


def test_same_inputs_leave_the_same_bytes(files, monkeypatch):
    _, out, _ = _run(files, monkeypatch)
    before = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    _run(files, monkeypatch)
    assert before == {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert sorted(str(name) for name in before) == [
        *("quality/all.npz", "quality/model.json"),
        *("toxicity/all.npz", "toxicity/model.json"),
    ]


def test_only_the_classifier_that_is_named_is_trained_and_nothing_held_out_is_fine(files, monkeypatch):
    outcome, out, _ = _run(files, monkeypatch, train=["toxicity"], heldout_ratio=0.0, quality_negatives=[])
    assert [path.name for path in out.iterdir()] == ["toxicity"]
    assert "toxicity.roc_auc" not in outcome.metrics and outcome.metrics["toxicity.heldout_examples"] == 0


def test_label_without_examples_is_refused(files, monkeypatch):
    with pytest.raises(InputError, match="two labels"):
        _run(files, monkeypatch, quality_negatives=[])
