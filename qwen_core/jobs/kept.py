"""An earlier tokenizer, kept as long as it serves the corpus: what it is measured against, and when it has drifted.

    held-out documents ─▶ tokens for a byte, by language ─▶ against those of its training ─▶ kept, or a new one

Drift is the relative rise of tokens for a byte: the same tokenizer on later text. Each language counts by its share of
the corpus as it is now, on both sides, so that a mix that has shifted is no drift by itself; a language that the
tokenizer was not measured on then is compared with the average of then. (The normalised sequence length of Dagan et
al., 2024, compares two tokenizers on one text in the same unit.) The figures of its training go with a tokenizer from
run to run, so that many small rises add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qwen_core.artifacts import Manifest

_MEASURE = "bytes_per_token/"


@dataclass(frozen=True)
class Drift:
    """How a tokenizer has drifted.

    Attributes:
        ratio: Relative rise of tokens for a byte over the whole corpus; below 0 where it serves better than before.
        languages: The same for each language that it was measured on, then and now.
    """

    ratio: float
    languages: dict[str, float]


def baseline_of(kept: Manifest) -> dict[str, Any]:
    """Tell how a tokenizer fared when it was trained.

    Args:
        kept: Its manifest, of the run that trained it or of one that kept it.

    Returns:
        `trained_by` (URI of the manifest), `tokens_per_byte` by language and `shares` of the corpus by language.
    """
    known: dict[str, Any] | None = kept.details.get("baseline")
    return known or {"trained_by": kept.uri, "tokens_per_byte": tokens_per_byte(kept.metrics)}


def tokens_per_byte(figures: Mapping[str, float]) -> dict[str, float]:
    """Turn bytes for a token into tokens for a byte.

    Args:
        figures: Of `tokenizer.measure`, named `bytes_per_token/<language>` among others.

    Returns:
        Figures by language.
    """
    return {
        name.removeprefix(_MEASURE): 1 / value
        for name, value in figures.items()
        if name.startswith(_MEASURE) and value > 0
    }


def drift_of(before: Mapping[str, float], now: Mapping[str, float], sizes: Mapping[str, float]) -> Drift:
    """Measure the drift.

    Args:
        before: Tokens for a byte by language, when the tokenizer was trained.
        now: The same, on the present corpus.
        sizes: Bytes of the present corpus by language.

    Returns:
        The drift; 0 where nothing can be compared.
    """
    weights = {name: max(sizes.get(name, 0.0), 1e-9) for name in now}
    total = sum(weights.values())
    if not before or not total:
        return Drift(0.0, {})
    known = {name: weights[name] for name in now if name in before}
    average = (
        sum(before[name] * weight for name, weight in known.items()) / sum(known.values())
        if known
        else sum(before.values()) / len(before)
    )
    then = sum(before.get(name, average) * weight for name, weight in weights.items())
    ratio = sum(now[name] * weight for name, weight in weights.items()) / then - 1
    return Drift(ratio, {name: now[name] / before[name] - 1 for name in sorted(known)})
