"""When a tokenizer has drifted."""

from types import SimpleNamespace

import pytest

from qwen_core.jobs.kept import baseline_of, drift_of, tokens_per_byte

THEN = {"en": 0.25, "zh": 0.5}


def test_drift_is_the_relative_rise_of_tokens_for_a_byte_weighted_by_todays_bytes():
    """en +20% on three quarters of the bytes, zh -10% on a quarter: (0.225 + 0.1125) / (0.1875 + 0.125) - 1."""
    found = drift_of(THEN, {"en": 0.3, "zh": 0.45}, {"en": 300, "zh": 100})
    assert found.ratio == pytest.approx(0.3375 / 0.3125 - 1)
    assert found.languages == {"en": pytest.approx(0.2), "zh": pytest.approx(-0.1)}


def test_a_mix_that_shifts_is_no_drift_by_itself():
    assert drift_of(THEN, THEN, {"en": 1, "zh": 999}).ratio == pytest.approx(0)


def test_a_new_language_is_compared_with_the_average_of_then():
    """0.25 is known of en alone; ja takes 0.75, on half of the bytes: (0.125 + 0.375) / 0.25 - 1."""
    found = drift_of({"en": 0.25}, {"en": 0.25, "ja": 0.75}, {"en": 1, "ja": 1})
    assert found.ratio == pytest.approx(1.0) and list(found.languages) == ["en"]


def test_nothing_to_compare_with_is_no_drift():
    assert drift_of({}, {"en": 1.0}, {"en": 1}).ratio == 0


def test_the_figures_of_its_training_go_with_a_tokenizer_from_run_to_run():
    trained = SimpleNamespace(uri="a", details={}, metrics={"bytes_per_token/en": 4.0, "fertility/en": 1.0})
    first = baseline_of(trained)
    assert first == {"trained_by": "a", "tokens_per_byte": {"en": 0.25}}
    kept = SimpleNamespace(uri="b", details={"baseline": first}, metrics={"bytes_per_token/en": 3.0})
    assert baseline_of(kept) == first
    assert tokens_per_byte({"bytes_per_token/x": 0.0}) == {}
