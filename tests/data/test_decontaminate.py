"""Decontamination: every planted passage is found, in any dress and any script; what is only alike is left alone."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from qwen_core.data.decontaminate import (
    Item,
    add_reports,
    build_ngrams,
    count_documents,
    cut_hits,
    find_ngrams,
    read_items,
    report,
    without_common,
)
from qwen_core.errors import InputError

SHARED = Path(os.environ.get("QWEN_CORE_SHARED_DATA", Path(__file__).parents[3] / "shared/data"))
WORDS = [f"word{number}" for number in range(400)]
SIGNS = [chr(0x4E00 + number) for number in range(600)]


def _words(seed, count):
    return " ".join(np.random.default_rng(seed).choice(WORDS, count))


def _signs(seed, count):
    return "".join(np.random.default_rng(seed).choice(SIGNS, count))


ITEMS = [
    Item("maths", "1", (_words(1, 40), _words(2, 20))),
    Item("maths", "2", (_words(3, 9), "42")),
    Item("chinese", "1", (_signs(4, 60),)),
    Item("chinese", "2", (_signs(5, 15),)),
    Item("chinese", "3", (_signs(6, 10) + " uses the optimiser AdamW with " + _signs(7, 10),)),
    Item("tiny", "1", ("three short words", "河水")),
]
NGRAMS = build_ngrams(ITEMS)
PLANTED = [passage for item in ITEMS[:5] for passage in item.passages if len(passage) > 5]


def _held(texts, ngrams=NGRAMS):
    return find_ngrams(texts, ngrams).is_hit.tolist()


def test_every_planted_passage_is_found_in_any_dress():
    for passage in PLANTED:
        inside = f"{_words(90, 50)} {passage}, {_signs(91, 50)}"
        dressed = passage.upper().replace(" ", " -\n") + "!"
        assert _held([passage, inside, dressed]) == [True] * 3, passage


def test_unrelated_texts_and_too_short_passages_are_no_hits():
    assert not any(_held([_words(seed, 300) for seed in range(50, 90)] + [_signs(seed, 300) for seed in range(50, 90)]))
    assert not any(_held(["three short words 河水 42", "", "?!"]))
    assert NGRAMS.unchecked == (("tiny", "1"),)


def test_twelve_words_of_a_longer_passage_are_no_hit_and_thirteen_are():
    words = PLANTED[0].split()
    assert _held([" ".join(words[5:17]), " ".join(words[5:18])]) == [False, True]
    assert _held([PLANTED[3][5:24], PLANTED[3][5:25]]) == [False, True]
    assert _held([" ".join([*words[5:11], "other", *words[11:17]])]) == [False]


def test_rows_of_numbers_are_no_ngrams():
    table = Item("table", "1", ("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 then six words that are letters follow here",))
    text = "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16"
    assert _held([text], build_ngrams([table])) == [False]
    assert _held([text], build_ngrams([table], min_letter_ratio=0)) == [True]
    assert _held([table.passages[0]], build_ngrams([table])) == [True]


def test_places_and_shares_are_those_of_the_passage():
    text = f"{_words(90, 30)} {PLANTED[0]} {_words(91, 30)}"
    hits = find_ngrams(["", text, "nothing"], NGRAMS)
    assert set(hits.text.tolist()) == {1}
    assert text[hits.start.min() : hits.end.max()] == PLANTED[0]
    assert hits.share_ratio.tolist() == [0, 28 / 88, 0]


@pytest.mark.parametrize("passage", [PLANTED[0], PLANTED[3]])
def test_a_passage_is_found_anywhere_in_a_long_text(passage, monkeypatch):
    for module in ("qwen_core.data.index", "qwen_core.data.decontaminate.hits"):
        monkeypatch.setattr(f"{module}.BATCH_CHARS", 1500)
    monkeypatch.setattr("qwen_core.data.index._LONGEST_WORD", 100)
    monkeypatch.setattr("qwen_core.data.decontaminate.hits._OVERLAP_CHARS", 400)
    for before in range(0, 1200, 37):
        text = f"{_words(90, before)} {passage} {_words(91, 300)}"
        hits = find_ngrams([text, "short"], NGRAMS)
        assert text[hits.start.min() : hits.end.max()] == passage, before


def test_cutting_leaves_no_hit_and_no_torn_word():
    text = f"{_words(90, 100)} {PLANTED[0]} {_words(91, 100)}"
    hits = find_ngrams([text, "clean", PLANTED[1]], NGRAMS)
    cut = cut_hits([text, "clean", PLANTED[1]], hits)
    assert cut[1:] == ["clean", None]
    assert not any(_held(cut[:1])) and set(cut[0].split()) <= set(WORDS)
    assert len(text) - len(PLANTED[0]) - 450 < len(cut[0]) < len(text) - len(PLANTED[0]) - 390
    bare = cut_hits([text], hits, margin_chars=0, min_piece_chars=1)
    assert bare[0].split() == text.replace(PLANTED[0], "").split()


def test_a_text_in_too_many_pieces_is_given_up():
    text = " ".join(f"{_words(seed, 150)} {PLANTED[0]}" for seed in range(90, 96)) + " " + _words(97, 150)
    hits = find_ngrams([text], NGRAMS)
    assert cut_hits([text], hits, max_pieces=6) == [None]
    assert cut_hits([text], hits, max_pieces=7)[0].count("\n\n") == 6


def test_report_names_sets_and_items_and_parts_add_up():
    texts = [PLANTED[0], PLANTED[0] + " " + PLANTED[3], "clean", PLANTED[2]]
    whole = add_reports([report(find_ngrams(texts, NGRAMS), NGRAMS)])
    parts = add_reports(report(find_ngrams(part, NGRAMS), NGRAMS) for part in (texts[:1], texts[1:], []))
    assert (
        whole
        == parts
        == {
            "chinese": {"counts": {"documents": 1}, "items": {"1": 1}},
            "maths": {"counts": {"documents": 3}, "items": {"1": 2, "2": 1}},
        }
    )


def test_an_ngram_that_many_documents_hold_may_be_left_out():
    phrase = " ".join(PLANTED[0].split()[:13])
    texts = [f"{_words(seed, 20)} {phrase} {_words(seed + 50, 20)}" for seed in range(90, 102)]
    counts = count_documents(find_ngrams(texts, NGRAMS), NGRAMS)
    assert counts.max() == 12 and counts.sum() == 12
    rare = without_common(NGRAMS, counts, max_documents=10)
    assert not any(_held(texts, rare)) and _held([PLANTED[0]], rare) == [True]
    assert count_documents(find_ngrams([], NGRAMS), NGRAMS).sum() == 0


def test_no_items_are_no_hits():
    assert _held(["any text of some words"], build_ngrams([])) == [False]


def test_items_are_read_from_json_lines_and_plain_text(tmp_path):
    rows = [{"question": "a b", "choices": {"text": ["c", "d"]}, "id": 5}, {"question": "e", "choices": []}]
    packed = tmp_path / "quiz.jsonl.gz"
    packed.write_bytes(gzip.compress("\n\n".join(map(json.dumps, rows)).encode()))
    assert read_items(packed, ("question", "choices")) == [
        Item("quiz", "1", ("a b", "c", "d")),
        Item("quiz", "3", ("e",)),
    ]
    assert read_items(packed)[0].passages == ("a b", "c", "d")
    plain = tmp_path / "plain.txt"
    plain.write_text("first\nitem\n\n\nsecond")
    assert [item.passages[0].strip() for item in read_items(plain, evaluation="own")] == ["first\nitem", "second"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"question": "a"}', "line 1: no field answer; there are question"),
        ("\n[1]", "line 2: a list where an object should be"),
        ("{broken", "line 1: no JSON"),
        (None, "No such file"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(content, words, tmp_path):
    path = tmp_path / "quiz.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=words):
        read_items(path, ("answer",))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data, for real evaluation sets")
def test_every_item_of_gsm8k_and_humaneval_is_found_and_training_data_alike_is_not():
    maths = read_items(SHARED / "eval/gsm8k_test.jsonl", ("question", "answer"))
    code = read_items(SHARED / "eval/humaneval.jsonl", ("prompt", "canonical_solution", "test"))
    ngrams = build_ngrams(maths + code)
    assert not ngrams.unchecked
    planted = [f"Seen on a page:\n\n{passage}" for item in maths + code for passage in item.passages[:1]]
    assert find_ngrams(planted, ngrams).is_hit.all()
    training = read_items(SHARED / "instruct/gsm8k_train.jsonl.gz", ("question", "answer"))
    assert find_ngrams(["\n".join(item.passages) for item in training], ngrams).is_hit.mean() < 0.002
