"""Classifiers: the same bytes every time, scores that tell the labels apart, measures that agree with their meaning."""

import gzip
import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("fasttext")

from qwen_core.data.classify.calibrate import fit_scaling
from qwen_core.data.classify.codes import WINDOW_CHARS, codes_of, fasttext_lines
from qwen_core.data.classify.examples import Columns, Example, read_examples, split_examples
from qwen_core.data.classify.fasttext_view import fasttext_log_odds, train_fasttext
from qwen_core.data.classify.measures import (
    average_precision,
    calibration_error,
    f1_score,
    keep_threshold,
    precision_threshold,
    reliability,
    roc_auc,
    roc_curve,
)
from qwen_core.data.classify.minimise import minimise
from qwen_core.data.classify.model import Settings, scores, train_classifier
from qwen_core.data.classify.ngrams import train_ngrams
from qwen_core.data.classify.sample import sample_documents
from qwen_core.errors import InputError

GOOD = {
    "en": ("The river carries salt into the sea", "Water rises from the sea and falls as rain"),
    "zh": ("盐随着河水流进大海", "海水蒸发以后变成雨落下来"),
}
BAD = {
    "en": ("click here buy now click here", "login register login register home"),
    "zh": ("点击领取 加微信 点击领取", "登录 注册 首页 登录 注册"),
}
EXAMPLES = [
    Example(f"{text} {n}", label, language)
    for label, texts in (("high", GOOD), ("low", BAD))
    for language, listed in texts.items()
    for text in listed
    for n in range(8)
]
FAST = (("epoch", 10), ("lr", 0.5), ("dim", 8), ("wordNgrams", 2), ("seed", 1))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    place = tmp_path_factory.mktemp("classifier")
    settings = Settings(views=("ngrams",), min_language_examples=10, folds=2)
    sizes = train_classifier(EXAMPLES, "high", place / "model", place, settings)
    assert sizes == {"all": 64, "en": 32, "zh": 32}
    return place / "model"


def test_scores_tell_the_labels_apart_in_each_language_and_in_one_that_has_no_model(classifier):
    texts = [example.text for example in EXAMPLES]
    truth = np.array([example.label == "high" for example in EXAMPLES])
    for languages in ([example.language for example in EXAMPLES], ["fr"] * len(texts), None):
        values = scores(str(classifier), texts, languages)
        assert roc_auc(values, truth) > 0.95
        assert values.min() >= 0 and values.max() <= 1


def test_text_without_words_is_neither_and_no_text_is_no_score(classifier):
    assert scores(str(classifier), ["", " \n\t"], ["en", "zh"]).tolist() == [0.5, 0.5]
    assert len(scores(str(classifier), [], [])) == 0


def test_scores_do_not_depend_on_the_batch(classifier):
    texts = [example.text for example in EXAMPLES]
    alone = [scores(str(classifier), [text], ["zh"])[0] for text in texts[:5]]
    assert np.allclose(scores(str(classifier), texts, ["zh"] * len(texts))[:5], alone, atol=1e-6)


def test_model_is_the_same_bytes_after_memory_was_used_and_freed(classifier, tmp_path):
    settings = Settings(views=("ngrams",), min_language_examples=10, folds=2)
    train_classifier(EXAMPLES, "high", tmp_path / "model", tmp_path, settings)
    files = sorted(path.name for path in classifier.iterdir())
    assert files == ["all.npz", "en.npz", "model.json", "zh.npz"]
    for name in files:
        assert (classifier / name).read_bytes() == (tmp_path / "model" / name).read_bytes(), name


def test_fasttext_is_the_same_bytes_after_memory_was_used_and_freed(tmp_path):
    codes, truth = codes_of([e.text for e in EXAMPLES]), np.array([e.label == "high" for e in EXAMPLES])
    train_fasttext(codes, truth, tmp_path / "a.bin", tmp_path, **dict(FAST))
    rubbish = [np.full(2**18, np.nan, dtype=np.float32) for _ in range(64)]
    del rubbish
    train_fasttext(codes, truth, tmp_path / "b.bin", tmp_path, **dict(FAST))
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()
    assert roc_auc(fasttext_log_odds(tmp_path / "a.bin", codes), truth) > 0.95


@pytest.mark.slow
def test_two_views_score_together(tmp_path):
    settings = Settings(views=("fasttext", "ngrams"), folds=2, fasttext=FAST)
    train_classifier(EXAMPLES, "high", tmp_path / "model", tmp_path, settings)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["all.bin", "all.npz", "model.json"]
    truth = np.array([e.label == "high" for e in EXAMPLES])
    assert roc_auc(scores(str(tmp_path / "model"), [e.text for e in EXAMPLES]), truth) > 0.95


@pytest.mark.slow
def test_model_is_the_same_bytes_with_any_number_of_threads(tmp_path):
    code = (
        "import sys, random, numpy as np, pathlib\n"
        "from qwen_core.data.classify.codes import codes_of\n"
        "from qwen_core.data.classify.ngrams import train_ngrams\n"
        "r = random.Random(1)\n"
        "texts = [''.join(r.choice('abcdefgh ijkl 的一是不了') for _ in range(60)) for _ in range(3000)]\n"
        "train_ngrams(codes_of(texts), np.arange(3000) % 2 == 0).save(pathlib.Path(sys.argv[1]))\n"
    )
    for threads in ("1", "2"):
        names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        command = ["env", *(f"{name}={threads}" for name in names), sys.executable, "-c", code]
        subprocess.run([*command, str(tmp_path / f"{threads}.npz")], check=True)
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()


def test_folding_makes_one_of_full_width_and_capitals():
    wide, plain = codes_of(["ＡＢＣ１２３，Ｄ"]), codes_of(["abc123,d"])
    assert (wide.values == plain.values).all() and wide.ends.tolist() == [10]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Hello, World", "hello , world"),
        ("我用Python3写", "我 用 python3 写"),
        ("a\nb\x00c d", "a b c d"),
        ("__label__high", "_ _ label _ _ high"),
        ("", ""),
        ("。", "。"),
        ("\ud800x", "\ufffd x"),
        ("한국어 좋다", "한국어 좋다"),
    ],
)
def test_fasttext_sees_words_and_signs_on_one_line(text, line):
    lines = fasttext_lines(codes_of([text, "next"]))
    assert [" ".join(found.split()) for found in lines] == [line, "next"]


def test_of_a_long_text_the_beginning_the_middle_and_the_end_are_seen():
    text = "a" * 10_000 + "m" * 200 + "b" * 10_000
    seen = bytes(codes_of([text]).values.astype(np.uint8)).decode()
    assert seen.startswith(" aaa") and seen.endswith("bbb ") and "m" * 200 in seen
    assert len(seen) == 3 * WINDOW_CHARS + 4


def test_ngrams_never_reach_into_the_next_text():
    model = train_ngrams(codes_of(["good one", "bad one"] * 4), np.array([True, False] * 4))
    together = model.log_odds(codes_of(["good one", "x", "bad one"]))
    apart = [model.log_odds(codes_of([text]))[0] for text in ("good one", "x", "bad one")]
    assert np.allclose(together, apart, atol=1e-6)
    assert together[0] > 0 > together[2]


def test_minimum_of_a_bowl_is_found():
    """(x - 3)² + 10 (y + 1)² is smallest at (3, -1)."""
    found = minimise(
        lambda p: ((p[0] - 3) ** 2 + 10 * (p[1] + 1) ** 2, np.array([2 * (p[0] - 3), 20 * (p[1] + 1)])),
        np.zeros(2),
        60,
    )
    assert np.allclose(found, [3, -1], atol=1e-2)


def test_calibrated_chances_come_true_and_keep_the_order():
    random = np.random.default_rng(1)
    truth = random.random(6000) < 0.3
    odds = np.stack([random.normal(truth * 2.0, 1.0), random.normal(0.0, 1.0, 6000)], axis=1) * 5
    scaling = fit_scaling(odds[:3000], truth[:3000])
    chances = scaling.chances(odds[3000:])
    assert calibration_error(chances, truth[3000:]) < 0.03
    assert scaling.weights[0] > 5 * scaling.weights[1] >= 0
    x = np.linspace(-40, 40, 999)
    assert (np.diff(scaling.chances(np.stack([x, np.zeros(999)], axis=1))) >= 0).all()


def test_few_examples_are_calibrated_without_a_curve():
    scaling = fit_scaling(np.array([[5.0], [-5.0], [4.0], [-4.0]]), np.array([True, False, True, False]))
    assert scaling.knots == () and 0.5 < scaling.chances(np.array([[5.0]]))[0] < 0.99


def test_roc_auc_counts_ties_half_and_takes_a_million_scores():
    """Of the four pairs of (0.5, 0.9) with (0.1, 0.5), three are won and one is a tie: 3.5 / 4."""
    assert roc_auc(np.array([0.5, 0.9, 0.1, 0.5]), np.array([True, True, False, False])) == 0.875
    many = np.arange(1_000_000) % 1000 / 1000
    assert abs(roc_auc(many, np.arange(1_000_000) % 2 == 0) - 0.5) < 0.002
    assert np.isnan(roc_auc(np.array([0.1]), np.array([True])))


def test_measures_of_a_small_example():
    """Ranked: + - + -; precision 1 and 2/3 at the positives, so average precision 5/6; F1 at 0.5: 2·1/(2+2)."""
    values, truth = np.array([0.9, 0.6, 0.4, 0.1]), np.array([True, False, True, False])
    assert average_precision(values, truth) == pytest.approx(5 / 6)
    assert f1_score(values, truth) == 0.5
    false, true = roc_curve(values, truth)
    assert false.tolist() == [0, 0, 0.5, 0.5, 1] and true.tolist() == [0, 0.5, 0.5, 1, 1]
    assert all(x <= y for x, y in pairwise(false))
    assert [row["count"] for row in reliability(values, truth)] == [1, 1, 1, 1]
    assert calibration_error(values, truth) == pytest.approx((0.1 + 0.6 + 0.6 + 0.1) / 4)


def test_thresholds_follow_from_precision_and_keep_ratio():
    values, truth = np.array([0.9, 0.8, 0.6, 0.4, 0.1]), np.array([True, True, False, True, False])
    threshold = precision_threshold(values, truth, 0.75)
    assert (values > threshold).tolist() == [True, True, True, True, False]
    assert (values > precision_threshold(values, truth, 0.9)).sum() == 2
    assert precision_threshold(1 - values, truth, 0.9) is None
    assert (np.arange(100) / 100 >= keep_threshold(np.arange(100) / 100, 0.3)).sum() == 30
    assert keep_threshold(values, 1.0) == 0.1


def _write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_examples_are_read_from_json_csv_tsv_parquet_and_text(tmp_path):
    labels = ("toxic", "clean")
    mapped = Columns(text="TEXT", label="class", labels={"1": "toxic", "0": "clean"}, fixed_language="zh")
    table = pa.table({"TEXT": ["坏", "好"], "class": [1, 0]})
    pq.write_table(table, tmp_path / "a.parquet")
    files = [
        tmp_path / "a.parquet",
        _write(tmp_path / "a.csv", '\ufeff,class,TEXT\n0,1,坏\n1,0,"好"\n'),
        _write(tmp_path / "b.csv", "class,TEXT\r\n1,坏\r\n0,好\r\n", "gb18030"),
        _write(tmp_path / "a.tsv", "class\tTEXT\n1\t坏\n0\t好\n"),
    ]
    for file in files:
        examples, drops = read_examples(file, mapped, labels)
        assert examples == [Example("坏", "toxic", "zh"), Example("好", "clean", "zh")] and not drops, file
    lines = json.dumps({"text": "x", "label": "toxic", "language": "en"}) + "\n"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    assert read_examples(tmp_path / "a.jsonl.gz", Columns(), labels)[0] == [Example("x", "toxic", "en")]
    words = _write(tmp_path / "a.txt", "one\n\ntwo\n")
    found, _ = read_examples(words, Columns(fixed_label="clean"), labels)
    assert found == [Example("one", "clean"), Example("two", "clean")]


def test_broken_rows_are_counted_and_the_others_kept(tmp_path):
    rows = ['{"text": "x", "label": "toxic"}', "{", "[1]", '{"text": " ", "label": "toxic"}', '{"text": "y"}']
    file = _write(tmp_path / "a.jsonl", "\n".join([*rows, '{"text": "z", "label": "maybe"}']))
    examples, drops = read_examples(file, Columns(), ("toxic", "clean"))
    assert examples == [Example("x", "toxic")]
    assert drops == {"invalid_json": 2, "missing_text": 1, "missing_label": 1, "unknown_label": 1}
    table = _write(tmp_path / "a.csv", "text,label\nx,toxic\nonly\na,b,c\ny\x00,clean\n")
    examples, drops = read_examples(table, Columns(), ("toxic", "clean"))
    assert [example.label for example in examples] == ["toxic", "clean"] and drops == {"broken_row": 2}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "TEXT,label\nx,1\n", r"no column 'text'; its columns are: TEXT, label"),
        ("a.jsonl", '{"text": "x", "label": "1"}\n', r"no example that can be used .*'unknown_label': 1"),
        ("a.jsonl", "", r"no rows"),
        ("a.parquet", "no parquet", r"cannot be read"),
        ("a.jsonl.gz", "no gzip", r"cannot be read"),
        ("a.xls", "x", r"examples are read from"),
    ],
)
def test_file_of_no_use_is_refused_with_what_to_do(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message):
        read_examples(_write(tmp_path / name, text), Columns(), ("toxic", "clean"))


def test_split_is_independent_of_order_and_never_parts_equal_texts():
    examples = [Example(f"text {n % 50}", label) for label in ("high", "low") for n in range(100)]
    train, heldout = split_examples(examples, 0.2, 7)
    again = split_examples(list(reversed(examples)), 0.2, 7)
    assert (train, heldout) == again
    assert not {(e.text, e.label) for e in train} & {(e.text, e.label) for e in heldout}
    assert sum(e.label == "high" for e in heldout) == 20


def test_one_label_alone_is_refused():
    with pytest.raises(InputError, match="two labels"):
        split_examples([Example("x", "high")] * 4, 0.2, 0)


def test_sample_is_the_same_whatever_the_order_of_the_tables():
    table = pa.table(
        {
            "id": [str(n) for n in range(200)],
            "text": [f"text {n}" for n in range(200)],
            "language": ["en" if n % 2 else "zh" for n in range(200)],
        }
    )
    drawn = sample_documents([table.slice(0, 70), table.slice(70)], 10, seed=3)
    assert drawn == sample_documents([table.slice(70), table.slice(0, 70)], 10, seed=3)
    assert {name: len(texts) for name, texts in drawn.items()} == {"en": 10, "zh": 10}
    assert drawn != sample_documents([table], 10, seed=4)
