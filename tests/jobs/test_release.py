"""What `release` answers, and where a champion's figures come from."""

import json
from types import SimpleNamespace

import pytest

from qwen_core.artifacts import Store
from qwen_core.errors import InputError
from qwen_core.jobs.carded import data_changes, recipe_changes
from qwen_core.jobs.champion import SETS, compared, figures_of, language_bytes
from qwen_core.jobs.promote import main, promoted, rolled_back, told
from qwen_core.jobs.release import AWAITING, PROMOTED, REFUSED, result_of
from qwen_core.tracking.promotion import promote
from qwen_core.tracking.registry import Registered
from tests.jobs.retraining import NAME, register

FIGURES = {"bits_per_byte": 2.0, "preference_accuracy": 0.5, "answer_loss": 3.0}
OURS = dict.fromkeys(SETS, "a")


def released(decision, version="1", **details):
    told = {"name": NAME, "version": version, "decision": decision, "reason": "so", "champion": None, "checks": []}
    return SimpleNamespace(details=told | details)


def test_what_waited_for_a_person_and_is_champion_by_now_was_promoted(mlflow_uri):
    one, two = register(mlflow_uri, [{}, {}])
    assert result_of(released(AWAITING, "2"), mlflow_uri)["decision"] == AWAITING
    promote(mlflow_uri, one, "ann", "x")
    assert result_of(released(AWAITING, "2"), mlflow_uri)["decision"] == AWAITING
    promote(mlflow_uri, two, "ann", "x")
    assert result_of(released(AWAITING, "2"), mlflow_uri)["decision"] == PROMOTED
    assert result_of(released(REFUSED, "2"), mlflow_uri)["decision"] == REFUSED


def test_a_release_of_before_there_were_decisions_is_understood(mlflow_uri):
    old = released(None, aliases=["challenger", "champion"])
    assert result_of(old, mlflow_uri)["decision"] == PROMOTED
    assert result_of(released(None, aliases=["challenger"]), mlflow_uri)["decision"] == REFUSED


def test_a_champion_measured_on_the_same_data_is_not_measured_again(tmp_path):
    champion = Registered(NAME, "1", {"sets": json.dumps(OURS), "figures": json.dumps(FIGURES)})
    assert figures_of(champion, OURS, Store(str(tmp_path)), pytest.fail) == FIGURES


def test_a_champion_measured_on_other_data_is_measured_anew_and_only_once(tmp_path):
    champion = Registered(NAME, "3", {"sets": json.dumps(OURS), "figures": "{}", "model_fingerprint": "gone"})
    asked = []

    def measure(named):
        asked.append(named)
        return FIGURES

    store, sets = Store(str(tmp_path)), OURS | {"heldout": "b"}
    assert figures_of(champion, sets, store, measure) == figures_of(champion, sets, store, measure) == FIGURES
    assert asked == [f"models:/{NAME}/3"]
    figures_of(champion, sets | {"instruct": "b"}, store, measure)
    assert len(asked) == 2


def test_only_what_the_gate_compares_is_taken_of_one_model():
    metrics = {"dpo.bits_per_byte/language/en": 1.0, "dpo.answer_loss": 2.0, "sft.answer_loss": 9.0, "dpo.tasks/x": 1.0}
    assert compared(metrics, "dpo") == {"bits_per_byte/language/en": 1.0, "answer_loss": 2.0}
    rows = [{"language": "en", "bytes": 3}, {"language": "en", "bytes": 4}, {"language": "zh", "bytes": 5}]
    assert language_bytes(SimpleNamespace(details={"heldout": rows})) == {"en": 7, "zh": 5}


def test_a_version_that_the_gate_refused_becomes_champion_only_by_force(mlflow_uri):
    register(mlflow_uri, [{}, {"gate": "refused", "gate_reason": "answer_loss is high"}], champion="1")
    with pytest.raises(InputError, match=r"the gate refused version 2.*answer_loss is high.*--force"):
        promoted(mlflow_uri, NAME, "2", "ann", None)
    result = promoted(mlflow_uri, NAME, "2", "ann", "we know better", True)
    assert result["changed"] and told(result) == "version 2 of 'small' is champion; before it was version 1"
    assert "nothing was changed" in told(promoted(mlflow_uri, NAME, "2", "ann", None, True))
    assert rolled_back(mlflow_uri, NAME, None, "ann", None)["version"] == "1"


def test_the_job_answers_with_a_line_or_an_exit_code(mlflow_uri, capsys):
    register(mlflow_uri, [{}])
    place = ["--tracking-uri", mlflow_uri, "--name", NAME, "--by", "ann"]
    assert main([*place, "--version", "1", "--why", "it is good"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("qwen-core result: "))
    assert (result["name"], result["version"], result["by"], result["why"]) == (NAME, "1", "ann", "it is good")
    assert main([*place, "--version", "7"]) == 3 and "no version 7" in capsys.readouterr().out
    assert main([*place, "--rollback"]) == 3


def test_release_notes_tell_what_differs_in_data_and_recipe():
    def run(documents, source, words, base):
        funnel = [[source, "en", "", documents, 100]]
        made = {name: SimpleNamespace(rows=documents, tokens=0, config={}, details={}) for name in ("ingest", "pack")}
        made["dedup"] = SimpleNamespace(rows=documents, tokens=0, config={}, details={"funnel": funnel})
        made["filter"] = SimpleNamespace(config={"filter": {"min_words": words}}, rows=1, details={})
        made["tokenizer"] = SimpleNamespace(config={}, details={}, rows=300)
        made["ingest"].config = {"ingest": {"base": base}}
        return made

    before, now = run(1000, "news", 5, None), run(1500, "books", 7, "uri")
    assert list(recipe_changes(before, now)) == ["`filter.min_words`: 5 → 7"]
    lines = list(data_changes(before, now))
    assert "documents kept: 1,000 → 1,500 (+500)" in lines
    assert "sources that are new: books" in lines and "sources that are gone: news" in lines
    assert list(recipe_changes(before, before)) == list(data_changes(before, before)) == []
