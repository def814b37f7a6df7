"""Sentences of lines."""

import random

from qwen_core.data.rules.batch import Batch
from qwen_core.data.rules.sentences import further_sentences, most_further_sentences

_PIECES = ["One two", "Mr.", "U.S.", "a.m.", "end.", "end!", "why?", "...", '"so."', "(no.)", ".", "。", "中文", "\n"]


def test_a_sentence_begins_at_the_first_word_behind_a_lone_closing_sign():
    batch = Batch(
        ["It rains. We stay. Mr. Smith left at 5 p.m. and came back!\nOne line", "No sign here"], ["en", "en"]
    )
    assert further_sentences(batch).tolist() == [2, 0, 0]


def test_no_line_has_more_sentences_than_its_closing_signs_allow():
    draw = random.Random(1)
    texts = ["".join(draw.choice(_PIECES) + draw.choice((" ", "")) for _ in range(40)) for _ in range(300)]
    batch = Batch(texts, ["en"] * len(texts))
    assert (most_further_sentences(batch) >= further_sentences(batch)).all()


def test_a_sign_at_a_lines_end_begins_no_further_sentence():
    assert most_further_sentences(Batch(["One sentence.\nAnother? And a third!"], ["en"])).tolist() == [0, 1]
