"""Words and signs: a table of texts and tokens."""

import pytest

from qwen_core.data.index import Index
from qwen_core.data.rules.phrases import Phrases, pairs
from qwen_core.data.rules.signs import signs
from qwen_core.data.rules.tokens import tokens

CASES = [
    ("", []),
    ("two words", ["two", "words"]),
    ("(A sign, or two!)", ["(", "A", "sign", ",", "or", "two", "!", ")"]),
    ("It's what we'll say; don't.", ["It", "'s", "what", "we", "'ll", "say", ";", "do", "n't", "."]),
    ("Mr. Hale of the U.S. left.", ["Mr.", "Hale", "of", "the", "U.S.", "left", "."]),
    ("wait... well..", ["wait", "...", "well", ".."]),
    ("a well-known word--or not", ["a", "well", "-", "known", "word", "--", "or", "not"]),
    ("3.5 kg, 50% of $20", ["3.5", "kg", ",", "50", "%", "of", "$", "20"]),
    ("read,write end.Start", ["read", ",", "write", "end", ".", "Start"]),
    ("see https://example.org/a-b=c now", ["see", "https://example.org/a-b=c", "now"]),
    ("foo(bar) snake_case", ["foo(bar", ")", "snake_case"]),
    ("河水。Sand", ["河", "水", "。", "Sand"]),
    ("“Quoted.”", ["“", "Quoted", ".", "”"]),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_text_is_cut_into_words_and_signs(text, expected):
    index = Index([text])
    found = tokens(index, signs()[index.codes])
    assert [text[start:end] for start, end in zip(found.start, found.end, strict=True)] == expected


def test_tokens_belong_to_their_texts():
    index = Index([text for text, _ in CASES])
    assert tokens(index, signs()[index.codes]).counts.tolist() == [len(expected) for _, expected in CASES]


def test_phrases_are_found_in_any_case_and_wherever_they_stand():
    texts = ["Use Cookies here. use cookies", "our privacy policy", "版权所有 ICP备123"]
    index = Index(texts)
    phrases = ["use cookies", "privacy policy", "icp备", "版权所有", "absent phrase"]
    joined = "\n".join([*texts, ""]).lower()
    expected = [[at for at in range(len(joined)) if joined.startswith(phrase, at)] for phrase in phrases]
    assert [places.tolist() for places in Phrases(phrases).find(index, pairs(index.codes))] == expected
