"""Language and script labels, from models that come with the installation.

text ─▶ characters of each script ─▶ one language has the script to itself? ─▶ its label
                                 └─▶ else py3langid (naive Bayes over byte n-grams; Lui & Baldwin, 2012)
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_PREFIX_CHARS = 1000
# Scripts as RE2 knows them; Kana and Hangul decide before Han, for Japanese and Korean texts hold Han characters too.
_SCRIPTS = {
    "Jpan": r"[\p{Hiragana}\p{Katakana}]",
    "Kore": r"\p{Hangul}",
    "Hani": r"\p{Han}",
    "Thai": r"\p{Thai}",
    "Grek": r"\p{Greek}",
    "Hebr": r"\p{Hebrew}",
    "Arab": r"\p{Arabic}",
    "Deva": r"\p{Devanagari}",
    "Cyrl": r"\p{Cyrillic}",
    "Latn": r"\p{Latin}",
}
_SOLE_LANGUAGE = {"Jpan": "ja", "Kore": "ko", "Hani": "zh", "Thai": "th", "Grek": "el", "Hebr": "he"}
# A Han character says about as much as a Latin word of three letters.
_WEIGHTS = np.array([3.0, 3.0, 3.0, 1, 1, 1, 1, 1, 1, 1])
_JAPANESE_KANA_RATIO = 0.1
# Frequent characters that were simplified, beside their traditional forms; enough to tell the two scripts apart.
_SIMPLIFIED = "[这来对说时为们国会个学过还没发问见门马车东长书电话语头实现应该开关种样间体机经济义乐业让请认识谁么爱]"
_TRADITIONAL = "[這來對說時為們國會個學過還沒發問見門馬車東長書電話語頭實現應該開關種樣間體機經濟義樂業讓請認識誰麼愛]"


def label(text: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Label texts with language, score and script.

    Args:
        text: Strings.

    Returns:
        ISO 639-1 labels (`und` where there is no letter), scores (0 to 1) and ISO 15924 scripts.
    """
    prefix = pc.utf8_slice_codeunits(text, 0, _PREFIX_CHARS)
    counts = np.stack([_count(prefix, pattern) for pattern in _SCRIPTS.values()], 1) * _WEIGHTS  # [n, scripts]
    kana, han = counts[:, 0], counts[:, 2]
    counts[:, 0] = np.where(kana > _JAPANESE_KANA_RATIO * han, kana + han, 0)
    names = np.array(list(_SCRIPTS))
    best = counts.argmax(1)
    total = np.maximum(1e-9, counts[:, 1:].sum(1) + kana)
    shares = counts.max(1) / total
    simplified, traditional = _count(prefix, _SIMPLIFIED), _count(prefix, _TRADITIONAL)
    labels: list[tuple[str, float, str]] = []
    for row, value in enumerate(prefix.to_pylist()):
        script = str(names[best[row]])
        if counts[row].max() == 0:
            labels.append(("und", 0.0, "Zyyy"))
            continue
        language, score = (_SOLE_LANGUAGE[script], float(shares[row])) if script in _SOLE_LANGUAGE else _classify(value)
        if script == "Hani":
            script = "Hant" if traditional[row] > simplified[row] else "Hans"
        labels.append((language, min(1.0, score), script))
    types = (pa.string(), pa.float32(), pa.string())
    languages, scores, scripts = (pa.array([row[i] for row in labels], kind) for i, kind in enumerate(types))
    return languages, scores, scripts


def _count(text: pa.Array | pa.ChunkedArray, pattern: str) -> np.ndarray:
    counted = pc.count_substring_regex(text, pattern=pattern)
    return np.asarray(counted.to_numpy(zero_copy_only=False) if isinstance(counted, pa.Array) else counted.to_numpy())


def _classify(text: str) -> tuple[str, float]:
    language, score = _identifier().classify(text)
    return str(language), float(score)


@functools.cache
def _identifier() -> Any:
    """Load the model once for each process; it lies in the installed package."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
