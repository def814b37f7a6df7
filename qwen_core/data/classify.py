"""fastText classifiers (Joulin et al., 2016): examples in, a model file out, scores for batches of texts.

Chinese is split into characters, which fastText joins to n-grams by itself; other text into lower-case words.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qwen_core.data.fasttext_process import train_apart
from qwen_core.data.words import split_words
from qwen_core.errors import InputError, MissingDependencyError

_MAX_WORDS = 400
_BUCKETS = 50_000  # fastText's default of two million takes 256 MB a model; the examples fill a fraction


@dataclass(frozen=True)
class Example:
    """A labelled text."""

    text: str
    label: str


def read_examples(path: Path) -> list[Example]:
    """Read labelled examples.

    Args:
        path: JSONL of `text` and `label`.

    Returns:
        The examples.

    Raises:
        InputError: The file is missing, a line is no JSON, or has no text or label.
    """
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    examples = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            examples.append(Example(str(record["text"]), str(record["label"])))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(f"{path}, line {number}: expected JSON with 'text' and 'label' ({error})") from error
    return examples


def split_examples(examples: Sequence[Example], heldout_ratio: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Split examples into training and held-out ones, each label by its share.

    Args:
        examples: All.
        heldout_ratio: Of each label.
        seed: Of the shuffle.

    Returns:
        Training and held-out examples.

    Raises:
        InputError: There are fewer than two labels.
    """
    labels = sorted({example.label for example in examples})
    if len(labels) < 2:
        raise InputError(f"a classifier needs examples of two labels, got {labels or 'none'}")
    train, heldout = [], []
    for label in labels:
        members = [example for example in examples if example.label == label]
        random.Random(f"{seed}/{label}").shuffle(members)
        cut = max(1, round(len(members) * heldout_ratio))
        heldout += members[:cut]
        train += members[cut:]
    random.Random(seed).shuffle(train)
    return train, heldout


def fasttext_lines(texts: Sequence[str]) -> list[str]:
    """Write texts as fastText reads them: words with spaces between, on one line.

    Args:
        texts: Any texts.

    Returns:
        Lines; long texts by their beginning.
    """
    words = split_words([text[: _MAX_WORDS * 8] for text in texts])
    bounds = zip(words.offsets[:-1], words.offsets[1:], strict=True)
    return [
        " ".join(words.vocabulary[code] for code in words.codes[start : min(end, start + _MAX_WORDS)])
        for start, end in bounds
    ]


def train_classifier(examples: Sequence[Example], target: Path, scratch: Path, **settings: Any) -> None:
    """Train a model; the same examples and settings give the same bytes.

    Args:
        examples: Labelled texts.
        target: Model file.
        scratch: Folder for fastText's input.
        **settings: `epoch`, `lr`, `dim`, `wordNgrams`, `seed`.
    """
    lines = fasttext_lines([example.text for example in examples])
    marked = [f"__label__{example.label} {line}\n" for example, line in zip(examples, lines, strict=True)]
    file = scratch / f"{target.stem}.txt"
    file.write_text("".join(marked), encoding="utf-8")
    _fasttext()  # a missing one is named here
    # One thread: several race on the weights, and no two runs would agree.
    own = {"input": str(file), "thread": 1, "bucket": _BUCKETS, "minCount": 1, "verbose": 0}
    train_apart(target, scratch, own | settings)


def scores(path: str, texts: Sequence[str], label: str) -> npt.NDArray[np.float64]:
    """Score texts.

    Args:
        path: Model file.
        texts: Any texts.
        label: Whose probability is asked.

    Returns:
        0 to 1 for each text; a text without words gets 0.5, for nothing is known of it.
    """
    lines = fasttext_lines(texts)
    labels, probabilities = _load(path).predict(lines, k=-1)  # a list: with one string, 0.9.3 fails under NumPy 2
    wanted = f"__label__{label}"
    found = [
        dict(zip(names, values, strict=True)).get(wanted, 0.5)
        for names, values in zip(labels, probabilities, strict=True)
    ]
    return np.where([bool(line) for line in lines], np.clip(found, 0.0, 1.0), 0.5)


def roc_auc(values: npt.NDArray[np.float64], is_positive: npt.NDArray[np.bool_]) -> float:
    """Compute the area under the ROC curve: the chance that a positive outranks a negative (ties count half).

    Args:
        values: Scores.
        is_positive: Truth.

    Returns:
        0 to 1.
    """
    positive, negative = values[is_positive], values[~is_positive]
    wins = (positive[:, None] > negative[None, :]).mean() + 0.5 * (positive[:, None] == negative[None, :]).mean()
    return float(wins)


def f1_score(values: npt.NDArray[np.float64], is_positive: npt.NDArray[np.bool_], threshold: float = 0.5) -> float:
    """Compute F1 at a threshold.

    Args:
        values: Scores.
        is_positive: Truth.
        threshold: Scores from here on count as positive.

    Returns:
        0 to 1.
    """
    called = values >= threshold
    hits = int((called & is_positive).sum())
    return 2 * hits / max(1, int(called.sum()) + int(is_positive.sum()))


@functools.lru_cache(maxsize=4)
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
