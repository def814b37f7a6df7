"""Toxicity on real labelled data: COLD (Chinese) and Davidson et al. (English), beside a plain fastText.

The plain fastText sees the same characters (words in English), one thread, learning rate 0.5, else its own defaults.
Both data sets contain offensive text; nothing of it is printed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fasttext
import numpy as np

from qwen_core.data.classify.codes import codes_of, fasttext_lines
from qwen_core.data.classify.examples import Columns, Example, read_examples, split_examples
from qwen_core.data.classify.measures import average_precision, calibration_error, f1_score, reliability, roc_auc
from qwen_core.data.classify.model import Settings, scores, train_classifier
from qwen_core.data.fasttext_process import train_apart
from tests.benchmarks.corpus import SHARED, is_here, megabytes
from tests.benchmarks.measure import timed

_FOLDER = "toxicity"
_LABELS = ("toxic", "clean")
_COLD = Columns(text="TEXT", label="label", labels={"1": "toxic", "0": "clean"}, fixed_language="zh")
_DAVIDSON = Columns(text="tweet", label="class", labels={"0": "toxic", "1": "toxic", "2": "clean"}, fixed_language="en")

Scorer = Callable[[list[Example]], np.ndarray]


def main() -> None:
    """Train on each set, and on both together, and print what the classifiers reach on texts that they never saw."""
    if not is_here(_FOLDER):
        print(f"Toxicity: skipped, {_FOLDER} is not there")
        return
    cold = (_read("cold_train.csv", _COLD), _read("cold_dev.csv", _COLD))
    davidson = split_examples(_read("davidson_labeled_data.csv", _DAVIDSON), 0.2, seed=42)
    together = split_examples(cold[0] + davidson[0], 0.0, seed=0)[0]
    print("Toxicity on held-out texts: COLD train / dev, Davidson a random 80 / 20")
    print(f"  {'':48} ROC AUC      AP      F1     ECE   training   scoring")
    for title, train, heldout in (
        ("COLD", *cold),
        ("Davidson", *davidson),
        ("both trained, COLD", together, cold[1]),
        ("both trained, Davidson", together, davidson[1]),
    ):
        for name, build in _CONTENDERS.items():
            _measure(f"{title}: {name}", build, train, heldout)


def _read(name: str, columns: Columns) -> list[Example]:
    examples, _ = read_examples(SHARED / _FOLDER / name, columns, _LABELS)
    return split_examples(examples, 0.0, seed=0)[0] if name == "cold_train.csv" else examples


def _ours(views: tuple[str, ...]) -> Callable[[list[Example], Path], Scorer]:
    def build(train: list[Example], place: Path) -> Scorer:
        train_classifier(train, "toxic", place / "model", place, replace(Settings(), views=views))
        return lambda texts: scores(str(place / "model"), [e.text for e in texts], [e.language for e in texts])

    return build


def _plain(train: list[Example], place: Path) -> Scorer:
    lines = fasttext_lines(codes_of([example.text for example in train]))
    file = place / "plain.txt"
    file.write_text("".join(f"__label__{e.label} {line}\n" for e, line in zip(train, lines, strict=True)))
    settings = {"input": str(file), "lr": 0.5, "wordNgrams": 2, "thread": 1, "seed": 1, "verbose": 0}
    train_apart(place / "plain.bin", place, settings)
    model = fasttext.load_model(str(place / "plain.bin"))

    def score(texts: list[Example]) -> np.ndarray:
        labels, chances = model.predict(fasttext_lines(codes_of([e.text for e in texts])), k=-1)
        return np.array([dict(zip(*row, strict=True))["__label__toxic"] for row in zip(labels, chances, strict=True)])

    return score


_CONTENDERS = {
    "qwen-core": _ours(("ngrams",)),
    "qwen-core with fastText": _ours(("fasttext", "ngrams")),
    "plain fastText": _plain,
}


def _measure(
    title: str, build: Callable[[list[Example], Path], Scorer], train: list[Example], test: list[Example]
) -> None:
    truth = np.array([example.label == "toxic" for example in test])
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        score = build(train, Path(folder))
        trained = time.perf_counter() - started
        score(test[:100])  # loads the model
        seconds, values = timed(lambda: np.clip(score(test), 0, 1), turns=1)
        rate = megabytes(example.text for example in test) / seconds
    print(
        f"  {title:48} {roc_auc(values, truth):.4f}  {average_precision(values, truth):.4f}  "
        f"{f1_score(values, truth):.4f}  {calibration_error(values, truth):.4f}  {trained:6.1f} s  {rate:6.1f} MB/s"
    )
    if "qwen-core" in title:
        table = " ".join(f"{row['chance']:.2f}:{row['share']:.2f}" for row in reliability(values, truth))
        print(f"    score : share that is toxic, by tenths: {table}")
