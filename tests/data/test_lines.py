"""Repeated lines: counted by document, cut from all but the first, exactly as much as meant."""

import numpy as np
import pytest

from qwen_core.data.lines import find_lines, repeated_lines, without_lines

TEXTS = [
    "Home | About us\nfirst text\n\nsame paragraph\nof two lines\n\nAll rights reserved 2024",
    "HOME  |  about us\r\nsecond text\r\n\r\nsame paragraph\r\nof two lines\r\n\r\n\r\nAll rights reserved 2024\r\n",
    "third\n\nAll rights reserved 2024\n\nend of third\nend of third",
    "",
]


def _cut(texts, unit, min_documents=2, min_chars=3, numbers=None):
    numbers = np.arange(len(texts)) if numbers is None else numbers
    lines = find_lines(texts, unit, min_chars)
    repeated = repeated_lines(lines.hashes, numbers[lines.text], min_documents)
    return without_lines(texts, numbers, repeated, unit, min_chars)


def test_repeated_lines_stay_in_the_first_document_alone():
    texts, cut = _cut(TEXTS, "line")
    assert texts == [TEXTS[0], "second text", "third\n\n\nend of third\nend of third", ""]
    assert cut.tolist() == [0, 75, 25, 0]


def test_repeated_paragraphs_are_cut_with_the_empty_lines_below():
    texts, _ = _cut(TEXTS, "paragraph")
    assert texts == [TEXTS[0], "HOME  |  about us\r\nsecond text", "third\n\nend of third\nend of third", ""]


def test_the_document_with_the_smallest_number_is_the_first_one():
    texts, _ = _cut(TEXTS[:2], "paragraph", numbers=np.array([5, 3]))
    assert texts == ["Home | About us\nfirst text", TEXTS[1]]


def test_lines_in_too_few_documents_and_short_ones_stay():
    assert _cut(TEXTS, "line", min_documents=4)[0] == TEXTS
    assert _cut(TEXTS, "line", min_chars=30)[0] == TEXTS
    assert "end of third\nend of third" in _cut(TEXTS, "line", min_documents=2)[0][2]


def test_counts_over_parts_are_those_of_one_run():
    together = find_lines(TEXTS, "line", 3)
    parts = [find_lines(TEXTS[:1], "line", 3), find_lines(TEXTS[1:], "line", 3)]
    hashes = np.concatenate([part.hashes for part in parts])
    numbers = np.concatenate([parts[0].text, parts[1].text + 1])
    order = np.random.default_rng(0).permutation(len(hashes))
    expected = repeated_lines(together.hashes, together.text, 2)
    found = repeated_lines(hashes[order], numbers[order], 2)
    assert all((ours == theirs).all() for ours, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize("unit", ["line", "paragraph"])
def test_a_long_text_in_pieces_is_cut_alike(unit, monkeypatch):
    filler = "\n\n".join(f"line {n} of a long text" for n in range(300))
    texts = [*TEXTS, filler + "\n\nAll rights reserved 2024\n\n" + filler]
    whole = _cut(texts, unit)
    monkeypatch.setattr("qwen_core.data.lines.BATCH_CHARS", 500)
    cut = _cut(texts, unit)
    assert cut[0] == whole[0] and "reserved" not in cut[0][4] and (cut[1] == whole[1]).all()


def test_a_line_longer_than_a_batch_is_passed_over(monkeypatch):
    monkeypatch.setattr("qwen_core.data.lines.BATCH_CHARS", 50)
    texts = ["same here\n" + "x " * 200 + "\nalso same", "y\n" + "x " * 200 + "\nalso same"]
    assert _cut(texts, "line")[0] == [texts[0], "y\n" + "x " * 200]


def test_no_texts_are_no_lines():
    assert _cut([], "line")[0] == [] and _cut(["", "\n"], "paragraph")[0] == ["", "\n"]
