"""The gate between challenger and champion."""

import json
import math

import pytest

from qwen_core.jobs.gate import Limits, as_rows, decision, judge

CHAMPION = {
    "bits_per_byte": 2.0,
    "bits_per_byte/language/en": 2.0,
    "bits_per_byte/language/zh": 2.0,
    "preference_accuracy": 0.6,
    "answer_loss": 3.0,
}
SIZES = {"en": 50_000, "zh": 100}


def verdicts(champion, **changes):
    named = {name.replace("_en", "/language/en").replace("_zh", "/language/zh"): v for name, v in changes.items()}
    checks = judge(champion, CHAMPION | named, Limits(), SIZES)
    return {check.name: check.verdict for check in checks}, decision(checks, "7" if champion else None)


@pytest.mark.parametrize(
    ("changes", "name", "verdict"),
    [
        ({}, "bits_per_byte", "passed"),
        ({"bits_per_byte": 2.02}, "bits_per_byte", "passed"),
        ({"bits_per_byte": 2.03}, "bits_per_byte", "failed"),
        ({"bits_per_byte_en": 2.09}, "bits_per_byte/language/en", "passed"),
        ({"bits_per_byte_en": 2.11}, "bits_per_byte/language/en", "failed"),
        ({"bits_per_byte_zh": 9.0}, "bits_per_byte/language/zh", "told"),
        ({"preference_accuracy": 0.55}, "preference_accuracy", "passed"),
        ({"preference_accuracy": 0.54}, "preference_accuracy", "failed"),
        ({"answer_loss": 3.15}, "answer_loss", "passed"),
        ({"answer_loss": 3.16}, "answer_loss", "failed"),
        ({"bits_per_byte": math.nan}, "bits_per_byte", "failed"),
        ({"bits_per_byte_zh": math.inf}, "bits_per_byte/language/zh", "failed"),
        ({"answer_loss": math.nan}, "answer_loss", "failed"),
    ],
)
def test_each_figure_passes_up_to_its_limit(changes, name, verdict):
    found, (is_passed, reason) = verdicts(CHAMPION, **changes)
    assert found[name] == verdict
    assert is_passed is (verdict != "failed")
    assert verdict != "failed" or name in reason


def test_without_a_champion_every_figure_need_only_be_a_number():
    _, (is_passed, reason) = verdicts(None, bits_per_byte=99.0)
    assert is_passed and reason == "there was no champion"
    assert not verdicts(None, bits_per_byte=math.nan)[1][0]


def test_a_champion_that_could_not_be_measured_is_not_replaced():
    found, (is_passed, reason) = verdicts({"preference_accuracy": 0.6})
    assert not is_passed and "could not be measured" in reason
    assert found["answer_loss"] == "told"


def test_a_figure_that_only_the_champion_lacks_decides_nothing():
    found, (is_passed, _) = verdicts({"bits_per_byte": 2.0})
    assert is_passed and found["preference_accuracy"] == found["answer_loss"] == "told"


def test_a_figure_that_was_not_measured_never_passes():
    checks = judge(CHAMPION, {"bits_per_byte": 1.0}, Limits(), SIZES)
    assert not decision(checks, "7")[0]


def test_rows_are_plain_json_also_where_a_figure_is_no_number():
    rows = as_rows(judge(CHAMPION, CHAMPION | {"answer_loss": math.nan}, Limits(), SIZES))
    again = json.loads(json.dumps(rows, allow_nan=False))
    assert again[-1]["challenger"] == "nan" and again[0]["limit"] == pytest.approx(2.02)
    assert "≤ 2.0200" in again[0]["reason"]
