"""The fastText view of a classifier (Joulin et al., 2016): words, their n-grams and their parts."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qwen_core.data.classify.codes import Codes, fasttext_lines
from qwen_core.data.fasttext_process import train_apart
from qwen_core.errors import MissingDependencyError

_BUCKETS = 200_000  # fastText's default of two million takes 128 MB a model; the examples fill a fraction
_SHORTEST_PART, _LONGEST_PART = 2, 4  # characters of a word's part; a Han character has none
_CERTAIN = 1e-6  # nearer to 0 or 1 the log odds would drown the other view
_MANY_UPDATES = 200_000
_FEWEST_EPOCHS, _MOST_EPOCHS = 5, 25

Floats = npt.NDArray[np.float64]


def train_fasttext(
    codes: Codes, is_positive: npt.NDArray[np.bool_], target: Path, scratch: Path, **settings: Any
) -> None:
    """Train a model; the same texts and settings give the same bytes.

    Args:
        codes: The texts.
        is_positive: Their labels.
        target: Model file.
        scratch: Folder for fastText's input.
        **settings: `epoch` (`None`: by the number of examples), `lr`, `dim`, `wordNgrams`, `seed`.

    Raises:
        MissingDependencyError: fasttext is not installed.
        QwenCoreError: fastText failed.
    """
    _fasttext()  # a missing one is named here
    lines = fasttext_lines(codes)
    file = scratch / f"{target.stem}.txt"
    marked = (f"__label__{int(label)} {line}\n" for label, line in zip(is_positive, lines, strict=True))
    file.write_text("".join(marked), encoding="utf-8")
    if settings.get("epoch") is None:
        settings["epoch"] = min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, _MANY_UPDATES // max(1, len(lines))))
    # One thread: several race on the weights, and no two runs would agree.
    own = {"input": str(file), "thread": 1, "bucket": _BUCKETS, "minCount": 1, "verbose": 0}
    parts = {"minn": _SHORTEST_PART, "maxn": _LONGEST_PART}
    train_apart(target, scratch, own | parts | settings)
    file.unlink()


def fasttext_log_odds(model: Path, codes: Codes, is_cached: bool = True) -> Floats:
    """Score texts.

    Args:
        model: Model file.
        codes: The texts.
        is_cached: Keep the model in memory for the next call.

    Returns:
        Log odds of the positive label, for each text; 0 for one without words.
    """
    lines = fasttext_lines(codes)
    if not lines:
        return np.zeros(0)
    loaded = _load(str(model)) if is_cached else _fasttext().load_model(str(model))
    labels, best = loaded.predict(lines, k=1)  # a list: with one string, 0.9.3 fails under NumPy 2
    chances = np.fromiter((row[0] if len(row) else 0.5 for row in best), np.float64, len(lines))
    is_positive = np.fromiter((row == ["__label__1"] for row in labels), bool, len(lines))
    chances = np.clip(np.where(is_positive, chances, 1 - chances), _CERTAIN, 1 - _CERTAIN)
    return np.log(chances / (1 - chances))


@functools.lru_cache(maxsize=16)
def _load(path: str) -> Any:
    return _fasttext().load_model(path)


def _fasttext() -> Any:
    try:
        import fasttext
    except ImportError as error:
        raise MissingDependencyError(
            "fasttext is not installed; install with: pip install 'qwen-core[data]'"
        ) from error
    fasttext.FastText.eprint = lambda *_, **__: None  # its loader prints a warning of no use
    return fasttext
