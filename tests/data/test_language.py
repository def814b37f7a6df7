"""Language and script labels."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from qwen_core.data.fasttext_process import train_apart
from qwen_core.data.language import label
from qwen_core.data.language.fasttext_model import FasttextLanguages, read_label
from qwen_core.data.language.ngrams import class_scores
from qwen_core.errors import InputError

SHARED = Path(os.environ.get("QWEN_CORE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
SENTENCES = [
    ("The quick brown fox jumps over the lazy dog.", "en", "Latn"),
    ("这是一个测试，我们来看看结果。", "zh", "Hans"),
    ("這是一個測試，我們來看看結果。", "zh", "Hant"),
    ("床前明月光", "zh", "Hans"),
    ("佢哋喺度食緊飯，我哋唔使等嘅。", "yue", "Hant"),
    ("これはテストです。漢字も含みます。", "ja", "Jpan"),
    ("東京駅前総合案内所発行の乗車券", "ja", "Jpan"),
    ("한국어로 쓴 문장입니다.", "ko", "Kore"),
    ("Это русский текст для проверки.", "ru", "Cyrl"),
    ("Це речення написане українською мовою, і в ньому є її літери.", "uk", "Cyrl"),
    ("Това изречение е написано на български език, за да го проверим.", "bg", "Cyrl"),
    ("این جمله به زبان فارسی نوشته شده و چند پرسش دارد.", "fa", "Arab"),
    ("هذه الجملة مكتوبة باللغة العربية من أجل التجربة.", "ar", "Arab"),
    ("यह वाक्य हिन्दी में लिखा गया है ताकि हम इसे जाँच सकें।", "hi", "Deva"),
    ("এই বাক্যটি বাংলা ভাষায় লেখা হয়েছে।", "bn", "Beng"),
    ("Αυτή η πρόταση είναι γραμμένη στα ελληνικά.", "el", "Grek"),
    ("המשפט הזה כתוב בעברית כדי לבדוק אותו.", "he", "Hebr"),
    ("ประโยคนี้เขียนเป็นภาษาไทย", "th", "Thai"),
    ("Das ist ein deutscher Satz, der lang genug ist.", "de", "Latn"),
    ("Ceci est une phrase écrite en français.", "fr", "Latn"),
    ("Esta oración está escrita en español para la prueba.", "es", "Latn"),
    ("Questa frase è scritta in italiano per la prova.", "it", "Latn"),
    ("Esta frase não é muito longa, mas foi escrita em português.", "pt", "Latn"),
    ("Deze zin is geschreven in het Nederlands om te proberen.", "nl", "Latn"),
    ("To zdanie zostało napisane po polsku dla próby.", "pl", "Latn"),
    ("Tato věta je napsána česky, abychom ji mohli vyzkoušet.", "cs", "Latn"),
    ("Câu này được viết bằng tiếng Việt để thử.", "vi", "Latn"),
    ("Kalimat ini ditulis dalam bahasa Indonesia karena kami ingin mencobanya.", "id", "Latn"),
    ("Bu cümle denemek için Türkçe yazılmıştır.", "tr", "Latn"),
    ("THIS SENTENCE WAS WRITTEN WITH CAPITAL LETTERS ONLY.", "en", "Latn"),
    ("我们在 https://example.org/some/long/path 上写了一篇关于 Python 的文章。", "zh", "Hans"),
    ("12345 !!!", "und", "Zyyy"),
    ("😀🎉 3.14", "und", "Zyyy"),
    ("", "und", "Zyyy"),
    (None, "und", "Zyyy"),
]
PYTHON = 'import os\n\n\ndef main(name):\n    path = os.path.join(name, "x")\n    return open(path).read()\n'
CODE = [
    PYTHON,
    "use std::io;\n\nfn main() {\n    let mut guess = String::new();\n    io::stdin().read_line(&mut guess);\n}\n",
    "const add = (a, b) => {\n  return a + b;\n};\n\nexport default add;\n",
    '# Über die Größe\n#include <stdio.h>\n\nint main(void) {\n    printf("%d\\n", 3);\n    return 0;\n}\n',
]
PROSE = [
    f"# How to read a file\n\nThis page shows it.\n\n```python\n{PYTHON}```\n\nThat is all.\n",
    "Things to buy:\n- bread;\n- milk (two);\n- butter.\nWe leave at nine, and she said: wait!\nThen he left.\n",
    "这个函数读取文件：\n\nimport os\nx = os.path.join('a')\n\n它返回内容，调用者负责关闭文件，否则会出错。\n",
    "1. Introduction ....... 3\n2. Methods ....... 7\n3. Results ....... 12\nSee the appendix for more of these.\n",
]


@pytest.mark.parametrize(("text", "language", "script"), SENTENCES)
def test_sentence_is_labelled(text, language, script):
    languages, scores, scripts = label(pa.array([text], pa.string()))
    assert (languages[0].as_py(), scripts[0].as_py()) == (language, script)
    assert 0 <= scores[0].as_py() <= 1


def test_labels_do_not_depend_on_the_other_texts_nor_on_chunks():
    texts = [text for text, _, _ in SENTENCES] + CODE + ["word " * 3000]
    together = [column.to_pylist() for column in label(pa.chunked_array([texts[:7], texts[7:]], pa.string()))]
    alone = [[column[0].as_py() for column in label(pa.array([text], pa.string()))] for text in texts]
    assert together[0] == [row[0] for row in alone]
    assert together[1] == pytest.approx([row[1] for row in alone], abs=1e-4)
    assert [len(column) for column in label(pa.array([], pa.string()))] == [0, 0, 0]


def test_batch_scores_are_those_of_py3langid():
    reference = LanguageIdentifier.from_model_file(MODEL_FILE)
    texts = [text.encode() for text, _, _ in SENTENCES if text] + [b"several windows of bytes, one after another " * 9]
    ends = np.cumsum([len(text) for text in texts])
    data = np.frombuffer(b"".join(texts), np.uint8)
    scores = class_scores(data, ends - [len(text) for text in texts], ends, np.arange(len(texts)), len(texts))
    for row, text in zip(scores, texts, strict=True):
        expected = reference._raw_score(text)
        if expected[0] > np.finfo(np.float32).min:  # it has n-grams of the model
            assert row == pytest.approx(expected, rel=1e-3, abs=0.05)


def test_long_text_is_judged_by_beginning_middle_and_end():
    english = "A cookie banner in English comes first, before anything else on this page. " * 3
    german = "Danach folgt ein langer Artikel, der auf Deutsch geschrieben ist und nicht aufhört. " * 60
    assert label(pa.array([english + german]))[0].to_pylist() == ["de"]


@pytest.mark.parametrize("text", CODE)
def test_source_code_is_recognised_without_a_file_name(text):
    languages, scores, _ = label(pa.array([text]))
    assert languages[0].as_py() == "code"
    assert scores[0].as_py() > 0.6
    assert label(pa.array([text]), find_code=False)[0][0].as_py() != "code"


@pytest.mark.parametrize("text", PROSE)
def test_prose_with_code_or_lists_stays_prose(text):
    assert label(pa.array([text]))[0][0].as_py() in ("en", "zh")


def test_label_below_its_threshold_becomes_undetermined_and_keeps_its_score():
    texts = pa.array(["The quick brown fox jumps over the lazy dog.", "Das ist ein deutscher Satz."])
    assert label(texts, min_score={"en": 1.0})[0].to_pylist() == ["und", "de"]
    assert label(texts, min_score={"*": 1.0, "en": 0.1})[0].to_pylist() == ["en", "und"]
    assert label(texts, min_score={"*": 1.0})[1].to_pylist() == label(texts)[1].to_pylist()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("__label__en", ("en", None)),
        ("__label__eng_Latn", ("en", "Latn")),
        ("__label__zho_Hans", ("zh", "Hans")),
        ("__label__cmn_Hani", ("zh", "Hani")),
        ("__label__arb_Arab", ("ar", "Arab")),
        ("__label__yue_Hant", ("yue", "Hant")),
        ("__label__als_Latn", ("sq", "Latn")),
        ("__label__als", ("gsw", None)),
        ("__label__good", None),
        ("hq", None),
    ],
)
def test_labels_of_fasttext_models_become_iso_codes(name, expected):
    assert read_label(name) == expected


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fasttext")

    def train(name, words):
        lines = [f"__label__{tag} {text}" for tag, text in words.items() for _ in range(60)]
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
        settings = {"input": str(folder / f"{name}.txt"), "epoch": 30, "lr": 0.5, "dim": 8, "minn": 1, "maxn": 3}
        train_apart(folder / f"{name}.bin", folder, settings | {"bucket": 2000, "thread": 1, "verbose": 0})
        return folder / f"{name}.bin"

    return train


def test_fasttext_model_labels_in_place_of_the_embedded_one(trained):
    model = trained(
        "glot", {"eng_Latn": "the cat sat on the mat", "cmn_Hani": "这是 一个 测试", "sun_Latn": "abdi téh"}
    )
    texts = pa.array(["the cat sat\non the mat", "這是一個測試們來說", "123", "abdi téh"])
    languages, scores, scripts = label(texts, model=str(model))
    assert languages.to_pylist() == ["en", "zh", "und", "su"]
    assert scripts.to_pylist() == ["Latn", "Hant", "Zyyy", "Latn"]
    assert all(0 <= score <= 1 for score in scores.to_pylist())


def test_model_of_other_labels_is_refused(trained):
    with pytest.raises(InputError, match=r"labels of .* are no languages, such as __label__good"):
        label(pa.array(["x"]), model=str(trained("quality", {"good": "a b", "bad": "c d"})))


def test_missing_foreign_and_cut_files_are_refused(trained, tmp_path):
    whole = trained("whole", {"en": "the cat", "de": "die Katze"}).read_bytes()
    for name, content, message in (
        ("absent", None, "names no file"),
        ("empty", b"", "is no fastText model"),
        ("text", b"hello, world", "is no fastText model"),
        ("tail", whole[:-1], "cut short or damaged"),
        ("half", whole[: len(whole) // 2], "cut short or damaged"),
        ("head", whole[:50], "cut short or damaged"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            FasttextLanguages.load(str(path))


def test_declaration_of_human_rights_is_labelled_right():
    file = SHARED / "langid" / "udhr.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"the shared data are not here: {file}")
    rows = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    rows = [row for row in rows if len(row["text"]) >= 20]
    found = label(pa.array([row["text"] for row in rows]))[0].to_pylist()
    assert np.mean([row["lang"] == name for row, name in zip(rows, found, strict=True)]) >= 0.98
