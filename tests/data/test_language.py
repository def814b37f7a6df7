"""Language and script labels."""

import pyarrow as pa
import pytest

from qwen_core.data.language import label

SENTENCES = [
    ("The quick brown fox jumps over the lazy dog.", "en", "Latn"),
    ("这是一个测试，我们来看看结果。", "zh", "Hans"),
    ("這是一個測試，我們來看看結果。", "zh", "Hant"),
    ("これはテストです。漢字も含みます。", "ja", "Jpan"),
    ("한국어로 쓴 문장입니다.", "ko", "Kore"),
    ("Это русский текст для проверки.", "ru", "Cyrl"),
    ("Das ist ein deutscher Satz, der lang genug ist.", "de", "Latn"),
    ("Ceci est une phrase écrite en français.", "fr", "Latn"),
    ("12345 !!!", "und", "Zyyy"),
]


@pytest.mark.parametrize(("text", "language", "script"), SENTENCES)
def test_sentence_is_labelled(text, language, script):
    languages, scores, scripts = label(pa.array([text]))
    assert (languages[0].as_py(), scripts[0].as_py()) == (language, script)
    assert 0 <= scores[0].as_py() <= 1
