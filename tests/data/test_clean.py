"""Cleaning and cutting."""

import pyarrow as pa

from qwen_core.data.clean import chunk, normalise


def test_text_is_normalised_without_losing_characters():
    texts = pa.array(["a\r\nb\x00c\u200b  \n\n\n\nd  ", "e\u0301", "　全角　"])
    assert normalise(texts).to_pylist() == ["a\nbc\n\nd", "\u00e9", "全角"]


def test_long_text_is_cut_at_paragraphs_and_nothing_is_lost():
    paragraphs = [f"paragraph {i} " + "word " * 20 for i in range(10)]
    chunks = chunk("\n\n".join(paragraphs), 300)
    assert all(len(part) <= 300 for part in chunks) and len(chunks) > 3
    assert "\n\n".join(chunks).split("\n\n") == paragraphs


def test_line_without_a_bound_is_cut_anywhere():
    chunks = chunk("x" * 25, 10)
    assert chunks == ["x" * 10, "x" * 10, "x" * 5]
    assert chunk("short", 10) == ["short"]
