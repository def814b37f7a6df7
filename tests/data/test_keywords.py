"""Keyword lists: what is a hit in which script, and every fault of a list named at once."""

import json

import pyarrow as pa
import pytest

from qwen_core.data.keywords import find_keywords, keywords_of, read_keywords
from qwen_core.errors import InputError


def _find(text, language, is_everywhere=False, **lists):
    found = find_keywords(pa.array([text]), [language], keywords_of(lists, is_everywhere))
    return dict(found.terms), int(found.counts[0])


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ("An Ass, an ASS.", 2),
        ("the class assesses", 0),
        ("ass's ears", 1),
        ("ass_ets, ass1", 0),
        ("blockass-free", 0),
        ("half-ass", 1),
        ("ass ass ass", 3),
        ("说ass的人", 1),  # a Chinese character beside it is no part of the word
        ("écrass", 0),
        ("assé", 0),
        ("", 0),
    ],
)
def test_english_term_matches_whole_words(text, hits):
    assert _find(text, "en", en=["ass"])[1] == hits


@pytest.mark.parametrize(
    ("term", "text", "hits"),
    [
        ("c++", "c++, c++11 and objc++", 2),
        ("$hit", "oh $hit, a$hit", 2),
        ("don't", "don't, don'ts", 1),
        ("hot dog", "hot dog, hot dogs, hot  dog", 1),
        ("бля", "ну бля! блять", 1),
        ("größe", "Größe Größen", 1),
        ("a.b", "a.b axb", 1),
    ],
)
def test_ends_are_judged_by_their_own_sign(term, text, hits):
    assert _find(text, "en", en=[term])[1] == hits


def test_chinese_term_matches_anywhere_and_latin_one_in_chinese_text_as_a_word():
    assert _find("他们在刷单啊，刷单。", "zh", zh=["刷单"]) == ({"刷单": 1}, 2)
    assert _find("用usb的人说sb", "zh", zh=["sb"])[1] == 1
    assert _find("カジノへ", "ja", ja=["カジノ"])[1] == 1


def test_of_several_terms_at_one_place_the_longest_that_fits_counts():
    terms = ["hot", "hot dog", "dog"]
    assert _find("hot dog", "en", en=terms)[0] == {"hot dog": 1}
    assert _find("hot dogs", "en", en=terms)[0] == {"hot": 1}


def test_lists_apply_to_their_language_or_everywhere():
    lists = {"en": ["spam"], "zh": ["博彩"], "*": ["re:x{3}"]}
    assert _find("spam 博彩 xxx", "zh", **lists)[0] == {"博彩": 1, "re:x{3}": 1}
    assert _find("spam 博彩", None, **lists)[0] == {}
    assert _find("spam 博彩 xxx", None, is_everywhere=True, **lists)[1] == 3


def test_few_hits_and_a_low_share_are_let_pass():
    texts = pa.chunked_array([["bad", "bad bad " + "fine " * 100], [None, "bad " * 10]])
    found = find_keywords(texts, ["en"] * 4, keywords_of({"en": ["bad"]}))
    assert found.counts.tolist() == [1, 2, 0, 10]
    assert found.is_blocked(1, 0.0).tolist() == [True, True, False, True]
    assert found.is_blocked(2, 0.0).tolist() == [False, True, False, True]
    assert found.is_blocked(1, 0.1).tolist() == [True, False, False, True]
    assert found.terms == {"bad": 3}


def test_a_long_list_finds_what_a_short_one_does():
    many = [f"word{n}x" for n in range(5000)] + ["needle"]
    assert _find("a needle in word4999x", "en", en=many)[0] == {"needle": 1, "word4999x": 1}
    assert _find("nothing of them", "en", en=many)[1] == 0


def test_nothing_listed_finds_nothing():
    assert _find("text", "en") == ({}, 0)
    assert len(find_keywords(pa.array([], pa.string()), [], keywords_of({"en": ["x"]})).counts) == 0


def test_lists_are_read_from_json_and_text(tmp_path):
    (tmp_path / "words.json").write_text(json.dumps({"en": ["One  Two", "x"], "*": ["re:\\d{9}"]}))
    (tmp_path / "en.txt").write_bytes("\ufeffthree\r\n\r\nX\r\n".encode())
    (tmp_path / "bad.zh.txt").write_text("刷单\n", encoding="utf-8")
    (tmp_path / "list").write_text("vier\n")
    paths = [tmp_path / name for name in ("words.json", "en.txt", "bad.zh.txt", "list")]
    assert read_keywords(paths, {"list": "de"}) == {
        "en": ["one two", "three", "x"],
        "*": ["re:\\d{9}"],
        "zh": ["刷单"],
        "de": ["vier"],
    }


def test_every_fault_of_every_list_is_named_with_file_and_line(tmp_path):
    (tmp_path / "en.txt").write_bytes(b"fine\nre:(open\nre:\nb\xe4d\nre:a*\nre:(?<=x)y\n")
    (tmp_path / "a.json").write_text('{"en": ["ok", ""], "zh": "no list"}')
    (tmp_path / "b.json").write_bytes(b'{"en": ["\xff"]}')
    (tmp_path / "UNKNOWN.txt").write_text("x")
    names = ("en.txt", "a.json", "b.json", "UNKNOWN.txt", "missing.txt")
    with pytest.raises(InputError) as caught:
        read_keywords([tmp_path / name for name in names])
    told = str(caught.value).splitlines()
    assert told[0] == "10 faults in keyword lists:"
    for expected in (
        "en.txt, line 2: '(open' is no regular expression",
        "en.txt, line 3: an empty term",
        "en.txt, line 4: not UTF-8 (byte 0xe4)",
        "en.txt, line 5: 'a*' matches the empty text",
        "en.txt, line 6: '(?<=x)y' is no regular expression that RE2",
        "a.json, 'en' term 2: an empty term",
        "a.json, 'zh': expected JSON",
        "b.json: expected JSON",
        "UNKNOWN.txt: the name does not end in a language",
        "missing.txt: cannot be read",
    ):
        assert any(expected in line for line in told), expected
