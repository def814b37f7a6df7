"""The index: words, tokens and lines as a plain loop finds them; hashes tell the same from the different."""

import itertools
import re

import numpy as np
import pytest

from qwen_core.data.index import Index, batches, pieces, run_hashes, run_sums

TEXTS = [
    "Hello, World! it's 3.5 snake_case naïve café",
    "",
    "模型 GPT-4 的训练，完成了。ｶﾀｶﾅ",
    "สวัสดี 한국어 단어 Ελληνικά",
    "\n\n  two  \r\n\tlines\u2028three\n",
    "e\u0301a\u200db \U0001f600\U0001f600 \ud800x",
]


def _spans(index, spans):
    """The texts of spans, by text."""
    codes = index.codes.tobytes().decode("utf-32-le", "surrogatepass")
    found = [codes[a:b] for a, b in zip(spans.start, spans.end, strict=True)]
    return [found[a:b] for a, b in zip(spans.offsets[:-1], spans.offsets[1:], strict=True)]


def test_words_are_runs_of_letters_and_single_characters_of_scripts_without_spaces():
    assert _spans(Index(TEXTS[:3]), Index(TEXTS[:3]).words) == [
        ["Hello", "World", "it", "s", "3", "5", "snake_case", "naïve", "café"],
        [],
        [*"模型", "GPT", "4", *"的训练完成了", *"ｶﾀｶﾅ"],
    ]
    assert _spans(Index(TEXTS), Index(TEXTS).words)[5] == ["e\u0301a\u200db", "x"]


@pytest.mark.parametrize("order", [1, -1])
def test_tokens_are_words_and_single_signs_and_hold_all_that_is_visible(order):
    texts = TEXTS[::order]
    index = Index(texts)
    tokens = _spans(index, index.tokens)
    assert ["".join(found) for found in tokens] == [re.sub(r"[\s\u2028]", "", text) for text in texts]
    words = _spans(index, index.words)
    for found, own in zip(tokens, words, strict=True):
        assert [token for token in found if token in own] == own
    lookup = dict(zip(index.tokens.start.tolist(), index.token_hashes.tolist(), strict=True))
    assert [lookup[start] for start in index.words.start.tolist()] == index.word_hashes.tolist()


def test_lines_are_without_the_space_around_them():
    index = Index(TEXTS[3:5])
    assert _spans(index, index.lines) == [[TEXTS[3]], ["two", "lines", "three"]]


def test_equal_spans_have_equal_hashes_in_any_case_and_place():
    index = Index(["Same word", "x same WORD same", "emas"])
    by_word = {}
    for word, code in zip(itertools.chain(*_spans(index, index.words)), index.word_hashes.tolist(), strict=True):
        by_word.setdefault(word.lower(), set()).add(code)
    assert all(len(codes) == 1 for codes in by_word.values())
    assert len({code for codes in by_word.values() for code in codes}) == 4


def test_runs_of_hashes_are_told_by_what_they_hold_and_add_up():
    hashes = np.array([3, 5, 7, 3, 5, 5, 3], np.uint64)
    first, last = np.array([0, 3, 4, 5, 2, 2]), np.array([2, 5, 6, 7, 2, 3])
    found = run_hashes(hashes, first, last).tolist()
    assert found[0] == found[1] and len(set(found)) == 5
    one, other, both = (int(run_sums(hashes, np.array([a]), np.array([b]))[0]) for a, b in ((0, 3), (3, 7), (0, 7)))
    assert both == (one + other * pow(0x9E3779B97F4A7C15, 3, 2**64)) % 2**64


def test_batches_hold_every_text_once_and_do_not_change_hashes():
    texts = [f"text {number} " * (number % 7) for number in range(50)]
    whole = Index(texts)
    parts = list(batches(texts, max_chars=100))
    assert [n for part, _ in parts for n in range(part.start, part.stop)] == list(range(50))
    assert len(parts) > 5
    assert np.concatenate([index.word_hashes for _, index in parts]).tolist() == whole.word_hashes.tolist()


@pytest.mark.parametrize("overlap", [0, 30])
def test_pieces_cover_a_text_and_cut_no_word(overlap, monkeypatch):
    monkeypatch.setattr("qwen_core.data.index.BATCH_CHARS", 100)
    monkeypatch.setattr("qwen_core.data.index._LONGEST_WORD", 40)
    text = " ".join(f"word{number}" for number in range(200))
    cut = list(pieces(text, overlap))
    assert cut[0][0] == 0 and cut[-1][1] == len(text)
    assert all(start == end - overlap for (_, end), (start, _) in itertools.pairwise(cut))
    assert all(end - start < 100 for start, end in cut)
    assert all(text[end - 1] == " " for _, end in cut[:-1])
    assert list(pieces("x" * 250)) == [(0, 99), (99, 198), (198, 250)]
    assert list(pieces("short")) == [(0, 5)] and list(pieces("")) == []
