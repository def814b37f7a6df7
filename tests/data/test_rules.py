"""Quality rules: a table of texts and expected reasons."""

import pyarrow as pa
import pytest

from qwen_core.config import load_recipe
from qwen_core.data.rules import reasons
from qwen_core.data.words import split_words

GOOD = "Rivers carry fine sand towards the sea, and the slower they flow the more of it sinks to the ground. " * 3
CASES = [
    (GOOD, "en", None),
    ("河水带着细沙流向大海，水流越慢，沉到河底的沙子就越多，日积月累便形成了平坦的三角洲。" * 2, "zh", None),
    ("Too short.", "en", "too_few_words"),
    ("12 34 56 78 90 " * 20, "en", "short_words"),
    ("1234 5678 9012 3456 " * 20, "en", "few_alpha_words"),
    ("# tag # tag " * 30 + GOOD, "en", "symbols"),
    ("\n".join(f"- point number {i} about a thing" for i in range(20)), "en", "bullet_lines"),
    (
        "\n".join(
            f"here is line number {i} of a text that goes on and on without ever coming to an end…" for i in range(12)
        ),
        "en",
        "ellipsis_lines",
    ),
    ("The very same line stands here again.\n" * 15, "en", "duplicate_lines"),
    ("x = 1\n" * 40, "code", None),
    ("Supercalifragilistic incomprehensibilities " * 30, "en", "long_words"),
]


@pytest.mark.parametrize(("text", "language", "expected"), CASES)
def test_document_gets_its_reason(text, language, expected):
    table = pa.table({"text": pa.chunked_array([[text]]), "language": [language]})
    thresholds = load_recipe("demo").filter.model_dump()
    assert list(reasons(table, split_words([text]), thresholds)) == [expected]


def test_unwanted_language_comes_before_every_other_reason():
    table = pa.table({"text": pa.chunked_array([["Zu kurz."]]), "language": ["de"]})
    thresholds = load_recipe("demo", ["filter.languages=[en, zh]"]).filter.model_dump()
    assert list(reasons(table, split_words(["Zu kurz."]), thresholds)) == ["language"]
