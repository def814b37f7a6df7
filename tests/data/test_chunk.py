"""Cutting of long documents."""

import time

import pytest

from qwen_core.data.chunk import chunk


def test_long_text_is_cut_at_paragraphs_and_nothing_is_lost():
    paragraphs = [f"paragraph {i} " + "word " * 20 + "end" for i in range(10)]
    chunks = chunk("\n\n".join(paragraphs), 300)
    assert all(len(part) <= 300 for part in chunks) and len(chunks) > 3
    assert "\n\n".join(chunks).split("\n\n") == paragraphs


def test_long_paragraph_is_cut_at_line_ends_and_indents_stay():
    chunks = chunk("\n".join(f"    line {i} of code" for i in range(20)), 100)
    assert all(len(part) <= 100 and part.startswith("    line") for part in chunks)


@pytest.mark.parametrize(
    ("sentence", "between"),
    [
        ("A sentence costs 3.5 dollars at example.com today!", " "),
        ("这是一个很长的句子，里面有标点。", ""),
        ("他说：“走吧！”", ""),
    ],
)
def test_long_line_is_cut_at_sentence_ends(sentence, between):
    text = between.join([sentence] * 30)
    chunks = chunk(text, 200)
    assert between.join(chunks) == text
    assert all(len(part) <= 200 and part.endswith(sentence) for part in chunks)


def test_line_without_a_bound_is_cut_at_spaces_else_anywhere():
    assert chunk("aaaa bbbb cccc", 10) == ["aaaa bbbb", "cccc"]
    assert chunk("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]
    assert chunk("short", 10) == ["short"] and chunk("", 10) == [""]


@pytest.mark.parametrize("piece", ["word ", "x", "\n", "。", "a.", "line\n", "para\n\n"])
def test_time_is_linear_whatever_the_text(piece):
    def seconds(chars):
        text = piece * (chars // len(piece))
        started = time.process_time()
        chunks = chunk(text, 2000)
        assert all(len(part) <= 2000 for part in chunks)
        return time.process_time() - started

    seconds(100_000)
    assert seconds(3_200_000) < 0.05 + 40 * max(seconds(200_000), 0.002)
