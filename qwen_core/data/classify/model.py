"""A classifier as a folder: for each language `<language>.bin` (fastText) and `<language>.npz` (n-grams), and
`model.json` with what scales their log odds to chances."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qwen_core.data.classify.calibrate import Scaling, fit_scaling
from qwen_core.data.classify.codes import WINDOW_CHARS, Codes, codes_of
from qwen_core.data.classify.examples import Example
from qwen_core.data.classify.fasttext_view import fasttext_log_odds, train_fasttext
from qwen_core.data.classify.ngrams import NgramModel, train_ngrams

ALL = "all"
"""The model for languages that have none of their own."""

VIEWS = ("fasttext", "ngrams")
_BATCH_CHARS = 4_000_000  # bounds memory: scoring needs some 40 bytes a character
_MAX_TRAINING_CHARS = 20_000_000

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Settings:
    """How classifiers are trained.

    Attributes:
        views: Words of `VIEWS`.
        min_language_examples: Languages with fewer examples share one model.
        folds: Of the cross-fitting that calibrates.
        fasttext: `epoch`, `lr`, `dim`, `wordNgrams`, `seed`.
    """

    views: tuple[str, ...] = VIEWS
    min_language_examples: int = 500
    folds: int = 3
    fasttext: tuple[tuple[str, Any], ...] = (("lr", 0.5), ("dim", 16), ("wordNgrams", 2), ("seed", 0))


def train_classifier(
    examples: Sequence[Example], positive: str, folder: Path, scratch: Path, settings: Settings
) -> dict[str, int]:
    """Train the models of a classifier and calibrate them; the same examples in the same order give the same bytes.

    Args:
        examples: Labelled texts, in no order that tells of labels; both labels occur.
        positive: The label whose chance is the score.
        folder: Where the classifier's files go.
        scratch: Folder for files in between.
        settings: How.

    Returns:
        Number of examples that each model learnt from, by language.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scalings, sizes = {}, {}
    for language, chosen in _by_language(examples, settings.min_language_examples).items():
        codes_list = _bounded([example.text for example in chosen])
        is_positive = np.array([example.label == positive for example in chosen[: len(codes_list)]])
        scalings[language] = _cross_fit(codes_list, is_positive, scratch, settings)
        _train_views(codes_of(codes_list), is_positive, folder / language, scratch, settings)
        sizes[language] = len(codes_list)
    told = {
        "positive": positive,
        "views": list(settings.views),
        "scalings": {language: asdict(scaling) for language, scaling in scalings.items()},
    }
    (folder / "model.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return sizes


def scores(folder: str, texts: Sequence[str], languages: Sequence[str | None] | None = None) -> Floats:
    """Score texts.

    Args:
        folder: Of a classifier.
        texts: Any texts; of long ones the beginning, the middle and the end are read.
        languages: Of each text; a language without a model of its own, or `None`, gets the one for all.

    Returns:
        The chance of the positive label, 0 to 1, for each text; 0.5 for one without words or signs.
    """
    classifier = _load(folder)
    answers = np.full(len(texts), 0.5)
    known = np.array([name in classifier.scalings for name in languages or [None] * len(texts)], bool)
    wanted = np.full(len(texts), ALL, dtype=object)
    if languages is not None:
        wanted[known] = np.asarray(languages, dtype=object)[known]
    for language in sorted(set(wanted)):
        rows = np.flatnonzero(wanted == language)
        chosen = [texts[row] for row in rows.tolist()]
        for part in _batches([len(text) for text in chosen]):
            answers[rows[part]] = classifier.chances(language, codes_of(chosen[part]))
    return answers


@dataclass(frozen=True)
class _Classifier:
    """What a classifier's folder holds."""

    folder: Path
    views: tuple[str, ...]
    scalings: dict[str, Scaling]

    def chances(self, language: str, codes: Codes) -> Floats:
        """Score texts of one language; blank ones get 0.5."""
        chances = self.scalings[language].chances(_log_odds(self.folder / language, codes, self.views))
        blank = np.add.reduceat(codes.values != 32, np.append(0, codes.ends[:-1])) == 0
        chances[blank] = 0.5
        return chances


def _by_language(examples: Sequence[Example], min_examples: int) -> dict[str, list[Example]]:
    """Group the examples of languages that have enough of both labels; under `ALL` stand all."""
    groups: dict[str, list[Example]] = {ALL: list(examples)}
    for language in sorted({example.language for example in examples if example.language}):
        chosen = [example for example in examples if example.language == language]
        labels = [example.label for example in chosen]
        fewest = min(labels.count(label) for label in {example.label for example in examples})
        if len(chosen) >= min_examples and fewest >= min_examples // 10 and len(chosen) < len(examples):
            groups[language] = chosen
    return groups


def _cross_fit(texts: list[str], is_positive: Bools, scratch: Path, settings: Settings) -> Scaling:
    """Score every text by a model that did not see it, and fit the scaling on these scores."""
    fold = np.empty(len(texts), int)
    for label in (True, False):  # each label by itself, so that every fold has both
        members = np.flatnonzero(is_positive == label)
        fold[members] = np.arange(len(members)) % settings.folds
    odds = np.zeros((len(texts), len(settings.views)))
    for number in range(settings.folds):
        inside, outside = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if not len(outside) or len(set(is_positive[inside])) < 2:
            continue
        place = scratch / f"fold-{number}"
        _train_views(codes_of([texts[i] for i in inside]), is_positive[inside], place, scratch, settings)
        odds[outside] = _log_odds(place, codes_of([texts[i] for i in outside]), settings.views, is_cached=False)
    return fit_scaling(odds, is_positive)


def _train_views(codes: Codes, is_positive: Bools, stem: Path, scratch: Path, settings: Settings) -> None:
    if "fasttext" in settings.views:
        train_fasttext(codes, is_positive, stem.with_suffix(".bin"), scratch, **dict(settings.fasttext))
    if "ngrams" in settings.views:
        train_ngrams(codes, is_positive).save(stem.with_suffix(".npz"))


def _log_odds(stem: Path, codes: Codes, views: Sequence[str], is_cached: bool = True) -> Floats:
    """Score texts by each view: [texts, views]."""
    columns = []
    for view in views:
        if view == "fasttext":
            columns.append(fasttext_log_odds(stem.with_suffix(".bin"), codes, is_cached))
        else:
            load = _load_ngrams if is_cached else _load_ngrams.__wrapped__
            columns.append(load(str(stem.with_suffix(".npz"))).log_odds(codes))
    return np.stack(columns, axis=1)


def _bounded(texts: list[str]) -> list[str]:
    """Leave out what comes after the most characters that training takes; memory grows with them."""
    total = np.cumsum([min(len(text), 3 * WINDOW_CHARS) for text in texts])
    return texts[: max(2, int(np.searchsorted(total, _MAX_TRAINING_CHARS, side="right")))]


def _batches(lengths: Sequence[int]) -> list[slice]:
    """Cut rows into runs of bounded length."""
    seen = np.cumsum(np.minimum(lengths, 3 * WINDOW_CHARS)) // _BATCH_CHARS
    bounds = [0, *(np.flatnonzero(np.diff(seen)) + 1).tolist(), len(lengths)]
    return [slice(start, end) for start, end in itertools.pairwise(bounds)]


@functools.lru_cache(maxsize=4)
def _load(folder: str) -> _Classifier:
    told = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
    scalings = {name: _scaling(s) for name, s in told["scalings"].items()}
    return _Classifier(Path(folder), tuple(told["views"]), scalings)


@functools.lru_cache(maxsize=16)
def _load_ngrams(path: str) -> NgramModel:
    return NgramModel.load(Path(path))


def _scaling(told: dict[str, Any]) -> Scaling:
    return Scaling(tuple(told["weights"]), told["bias"], tuple((x, y) for x, y in told["knots"]))
