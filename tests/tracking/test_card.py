"""The model card and the release notes."""

import dataclasses

import pytest
import yaml

from qwen_core.tracking.card import Facts, model_card, release_notes
from qwen_core.tracking.card_words import WORDS

CHECKS = [
    {"name": "bits_per_byte", "champion": 2.0, "challenger": 1.9, "limit": 2.02, "verdict": "passed", "reason": "so"},
    {"name": "answer_loss", "champion": None, "challenger": "nan", "limit": None, "verdict": "failed", "reason": "so"},
]
FACTS = Facts(
    name="small: one",
    run_key="r2",
    made_on="2026-01-31",
    description="For tests.",
    recipe="tiny",
    architecture={"model_type": "qwen3", "hidden_size": 1024},
    parameters=1_234_567,
    languages={"zh": 0.6, "en": 0.3, "code": 0.05, "und": 0.05},
    sources=[{"source": "a|b <i>", "language": "zh", "documents": 1000, "bytes": 2000}],
    licences=("MIT",),
    documents=1000,
    tokens=50_000,
    dates=("2026-01-01", "2026-01-31"),
    funnel=[{"stage": "filter", "kept": 1000, "drops": {"too_few_words": 1200}}],
    training=[{"stage": "pretrain", "start": "a seed", "steps": 10, "tokens": 5000, "loss": 2.5}],
    metrics={},
    tokenizer="kept",
    licence="apache-2.0",
    intended_use=None,
    lineage=[{"stage": "ingest", "fingerprint": "f1", "manifest": "s3://b/ingest/f1/manifest.json"}],
    changes={"data": ["documents: 1 → 2"], "recipe": []},
    champion="4",
)


def test_front_matter_is_what_the_hub_reads():
    front = yaml.safe_load(model_card(FACTS, CHECKS).split("---")[1])
    assert front["model_name"] == "small: one" and front["license"] == "apache-2.0"
    assert front["language"] == ["zh", "en"] and front["library_name"] == "transformers"
    bare = dataclasses.replace(FACTS, licence=None, languages={"code": 1.0})
    assert not {"license", "language"} & set(yaml.safe_load(model_card(bare, CHECKS).split("---")[1]))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_card_tells_data_training_evaluation_limits_lineage_and_use(language):
    text = model_card(FACTS, CHECKS, language)
    for title in ("what", "use_for", "data", "training", "evaluation", "limits", "lineage", "usage"):
        assert f"\n## {WORDS[language][title]}\n" in text
    for words in ("1,234,567", "zh 60.0%", "too_few_words 1,200", "MIT", "2026-01-01 – 2026-01-31", "a seed"):
        assert words in text
    assert "s3://b/ingest/f1/manifest.json" in text and 'load_model("models:/small: one@champion")' in text


def test_names_from_outside_cannot_break_a_table():
    assert "| a\\|b &lt;i> | zh | 1,000 | 2,000 |" in model_card(FACTS, CHECKS)


def test_evaluation_stands_beside_the_champions():
    assert "| bits_per_byte | 2.0000 | 1.9000 | 2.0200 | passed |" in model_card(FACTS, CHECKS)
    assert "| answer_loss |  | nan |  | 未通过 |" in model_card(FACTS, CHECKS, "zh")
    assert "| champion 4 |" in model_card(FACTS, CHECKS)


def test_notes_tell_what_changed_and_the_gates_decision():
    text = release_notes(FACTS, CHECKS, "refused, too bad")
    assert (
        text.startswith("## Release notes: r2")
        and "Compared with champion version 4. The gate: refused, too bad." in text
    )
    assert "### What changed in the data\n\n- documents: 1 → 2" in text
    assert "### What changed in the recipe\n\n- nothing" in text
    first = release_notes(dataclasses.replace(FACTS, champion=None), CHECKS, "promoted")
    assert "There was no champion" in first and "What changed" not in first


def test_both_languages_have_the_same_words():
    names = {language: {n for n in words if not n.startswith("column_")} for language, words in WORDS.items()}
    assert names["en"] == names["zh"]
