"""Cleaning: what a character is stays, what is noise goes, and only where it is asked for."""

import unicodedata
from collections import Counter

import pyarrow as pa
import pytest

from qwen_core.data.clean import normalise


def clean(text, **options):
    return normalise(pa.array([text, "clean"]), **options).to_pylist()[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb\x00c\u200b  \n\n\n\nd  ", "a\nbc\n\nd"),
        ("e\u0301", "\u00e9"),
        ("　全角　", "全角"),
        ("one\u2028two\u0085three\rfour", "one\ntwo\nthree\nfour"),
        ("\ufeffmark", "mark"),
        ("\n  indented", "indented"),
        ("می\u200cخواهم and 👩\u200d🔬", "می\u200cخواهم and 👩\u200d🔬"),
        ("lost \ufffd byte", "lost \ufffd byte"),
        ("a\n \nb\t\n\t\nc", "a\n\nb\n\nc"),
        ("", ""),
    ],
)
def test_text_is_normalised_without_losing_characters(text, expected):
    assert clean(text) == expected


def test_clean_text_comes_back_as_it_was():
    texts = pa.array(["plain", "汉字，标点。", "two\n\nparagraphs", ""])
    assert normalise(texts, fix_mojibake=True).equals(texts)
    assert normalise(pa.array([], pa.string()), fix_mojibake=True, drop_noise_lines=True).to_pylist() == []


@pytest.mark.parametrize("text", ["café – “naïve” façade…", "Привет, мир", "汉字，标点。", "naïve", "Ελλάδα 😀"])
def test_mojibake_is_mended(text):
    for wrong in ("latin-1", "cp1252"):
        repairs = Counter()
        try:
            scrambled = f"First line.\n{text.encode().decode(wrong)}\nLast line."
        except UnicodeDecodeError:
            continue
        assert clean(scrambled, fix_mojibake=True, repairs=repairs) == f"First line.\n{text}\nLast line."
        assert repairs["mojibake"] == 1


def test_windows_signs_that_were_read_as_controls_are_mended():
    assert clean("\x93Well\x94 \x96 he said, it\x92s", fix_mojibake=True) == "“Well” – he said, it’s"
    assert clean("\x93Well\x94") == "Well"


@pytest.mark.parametrize(
    "text", ["São João, açúcar à vontade", "ÂNGELO É ÓTIMO", "Ça va à Liège « vite »", "Æsir og Ærø", "ÃO"]
)
def test_good_text_is_no_mojibake(text):
    repairs = Counter()
    assert clean(text, fix_mojibake=True, repairs=repairs) == text
    assert not repairs


def test_half_width_is_for_letters_and_digits_alone():
    assert clean("ＡＢＣ１２３，全角。（ａ）", width="half") == "ABC123，全角。（a）"
    assert clean("ＡＢＣ１２３", width="keep") == "ＡＢＣ１２３"


def test_punctuation_is_changed_only_where_asked_for():
    text = "“你好”，世界！他说：（真的）…"
    assert clean(text) == text
    assert clean(text, punctuation="ascii") == '"你好",世界!他说:(真的)...'
    chinese = clean("你好,世界!版本1.2,在example.com上.真的?是.", punctuation="chinese")
    assert chinese == "你好，世界！版本1.2,在example.com上。真的？是。"
    assert clean("Hello, world. 3.5", punctuation="chinese") == "Hello, world. 3.5"


def test_noise_lines_go_only_where_asked_for():
    text = "Title\n=====\n\n* * *\nwo\u00adrd\n|---|---|\n水\n-----"
    repairs = Counter()
    assert clean(text) == text
    assert clean(text, drop_noise_lines=True, repairs=repairs) == "Title\n\nword\n水"
    assert repairs == {"noise_lines": 1}


def test_composing_is_counted():
    repairs = Counter()
    texts = normalise(pa.array(["o\u0308", "ö", "o"]), repairs=repairs).to_pylist()
    assert texts == ["ö", "ö", "o"] and repairs == {"not_nfc": 1}
    assert all(unicodedata.is_normalized("NFC", text) for text in texts)
