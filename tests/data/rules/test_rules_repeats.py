"""Repeated n-grams of whole batches against plain loops over each text."""

from collections import Counter

import numpy as np
import pytest

from qwen_core.data.rules.batch import Batch
from qwen_core.data.rules.gopher_repetition import broken_ngram_rules, paragraphs, top_characters
from qwen_core.data.rules.repeats import repeated_ngrams, seen_before


def random_texts(seed: int, number: int = 40) -> list[str]:
    """Texts over few words, so that much repeats, in stretches and singly."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(number):
        words = [f"w{code}" * int(rng.integers(1, 3)) for code in range(int(rng.integers(1, 12)))]
        text = list(rng.choice(words, int(rng.integers(0, 60))))
        if rng.random() < 0.6 and text:
            begin, size, times = int(rng.integers(0, len(text))), int(rng.integers(1, 25)), int(rng.integers(1, 5))
            text = text[:begin] + text[begin : begin + size] * times + text[begin:]
        texts.append(" ".join(text))
    return texts


def walked(words: list[str], size: int) -> int:
    """Gopher's repeated n-grams, word by word."""
    met, total, at = set(), 0, 0
    while at + size <= len(words):
        ngram = tuple(words[at : at + size])
        if ngram in met:
            total += sum(map(len, ngram))
            at += size
        else:
            met.add(ngram)
            at += 1
    return total


def most_frequent(words: list[str], size: int) -> int:
    """Characters of the first of the most frequent n-grams, all of its occurrences."""
    ngrams = Counter(" ".join(words[at : at + size]) for at in range(len(words) - size + 1))
    return max((len(ngram) * times for ngram, times in ngrams.most_common(1)), default=0)


@pytest.mark.parametrize("seed", range(12))
def test_repeated_ngrams_are_those_of_a_walk_word_by_word(seed):
    texts = random_texts(seed)
    batch = Batch(texts, ["en"] * len(texts))
    nobody, everybody = np.zeros(len(texts), bool), np.ones(len(texts), bool)
    for size in (2, 3, 5, 7, 10):
        expected = np.array([walked(text.split(), size) for text in texts])
        for limit in (0.0, 0.1, 0.3, 0.6):
            limits = {size: np.full(len(texts), limit)}
            ((_, exceeds),) = broken_ngram_rules(batch, {}, limits, nobody, everybody)
            assert (exceeds == (expected > limit * batch.index.lengths)).all()


@pytest.mark.parametrize("seed", range(12))
def test_most_frequent_ngram_is_that_of_a_counter(seed):
    texts = random_texts(seed)
    batch = Batch(texts, ["en"] * len(texts))
    ends = np.concatenate(([0], np.cumsum(batch.tokens.lengths)))
    everybody = np.ones(len(texts), bool)
    for repeated in repeated_ngrams(batch.tokens, batch.token_hashes, everybody, 6):
        expected = [most_frequent(text.split(), repeated.size) for text in texts]
        assert top_characters(batch.tokens, ends, repeated, everybody).tolist() == expected


def test_capitals_make_another_word():
    texts = ["The cat of THE cat"]
    batch = Batch(texts, ["en"])
    ((_, exceeds),) = broken_ngram_rules(batch, {}, {2: np.zeros(1)}, np.zeros(1, bool), np.ones(1, bool))
    assert not exceeds[0]


def test_seen_before_looks_within_a_document_only():
    hashes = np.array([7, 8, 7, 7, 9, 7], np.uint64)
    assert seen_before(hashes, np.array([0, 0, 0, 1, 1, 1])).tolist() == [False, False, True, False, False, True]


def test_paragraphs_are_parted_by_empty_lines():
    texts = ["\n\na\nb\n\n\nc \n\n", "", "d\n \ne"]
    batch = Batch(texts, [None] * 3)
    spans = paragraphs(batch)
    joined = "\n".join([*texts, ""])
    found = [joined[start:end] for start, end in zip(spans.start, spans.end, strict=True)]
    assert found == ["a\nb", "c", "d\n \ne"]
    assert spans.offsets.tolist() == [0, 2, 2, 3]


def test_long_document_of_one_word_is_quick_and_dropped():
    batch = Batch(["again " * 200_000], ["en"])
    limits = {size: np.full(1, 0.1) for size in range(2, 11)}
    broken = broken_ngram_rules(batch, {2: limits[2]}, limits, np.zeros(1, bool), np.ones(1, bool))
    assert broken[0][1][0]
