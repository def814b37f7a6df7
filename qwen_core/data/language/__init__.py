"""Language and script labels, from what comes with the installation or from any fastText model; source code is told.

text ─▶ reads as source code? ─▶ "code"
     └─▶ embedded model, or a fastText model by path ─▶ language, score, script ─▶ score too low? ─▶ "und"

Labels are ISO 639-1, or ISO 639-3 where a language has no code of two letters. A score is a probability: about that
share of labels with such a score is right (`python -m tests.benchmarks language` shows it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qwen_core.data.language.code import code_scores
from qwen_core.data.language.embedded import PRIOR_WEIGHT, Labels, embedded_labels
from qwen_core.data.language.fasttext_model import FasttextLanguages

__all__ = ["label"]

_ROWS_AT_ONCE = 4000
_MAX_CHARS = 20_000  # longer texts are labelled by their beginning


def label(
    text: pa.Array | pa.ChunkedArray,
    *,
    model: str | None = None,
    min_score: Mapping[str, float] | None = None,
    prior_weight: float = PRIOR_WEIGHT,
    find_code: bool = True,
) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Label texts with language, score and script.

    Args:
        text: Strings, in NFC.
        model: Path of a fastText model (`.bin` or `.ftz`) to use instead of the embedded one.
        min_score: Lowest score by language, `*` for all others; below it the language is `und`, its score stays.
        prior_weight: How much the size of a language on the web counts in the embedded model, 0 to 1.
        find_code: Label source code `code`; its score is the share of lines that read as code.

    Returns:
        Languages (`und` where there is no letter), scores (0 to 1) and ISO 15924 scripts (`Zyyy` without letters).

    Raises:
        InputError: The model is missing, damaged or knows no languages.
        MissingDependencyError: A model is given and fastText is not installed.
    """
    parts = [_label(part, model, prior_weight, find_code) for part in _parts(text)]
    languages, scores, scripts = (np.concatenate(column) for column in zip(*parts, strict=True))
    if min_score:
        lowest = np.array([min_score.get(name, min_score.get("*", 0.0)) for name in languages.tolist()], np.float32)
        languages = np.where(scores < lowest, "und", languages)
    return pa.array(languages, pa.string()), pa.array(scores, pa.float32()), pa.array(scripts, pa.string())


def _parts(text: pa.Array | pa.ChunkedArray) -> Iterator[pa.Array]:
    """Cut a column into batches without nulls or very long texts; at least one, perhaps empty."""
    for start in range(0, max(1, len(text)), _ROWS_AT_ONCE):
        part = text.slice(start, _ROWS_AT_ONCE)
        part = part.combine_chunks() if isinstance(part, pa.ChunkedArray) else part
        yield pc.utf8_slice_codeunits(pc.fill_null(part, ""), 0, _MAX_CHARS)


def _label(text: pa.Array, model: str | None, prior_weight: float, find_code: bool) -> Labels:
    languages, scores, scripts = embedded_labels(text, prior_weight)
    if model is not None:
        languages, scores, scripts = FasttextLanguages.load(model).labels(text, scripts)
    if find_code:
        code = code_scores(text)
        languages = np.where(code > 0, "code", languages)
        scores = np.where(code > 0, code, scores)
    return languages, scores, scripts
