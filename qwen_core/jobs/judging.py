"""What `filter` asks of each document, step by step; every step sees what the ones before it left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qwen_core.data.classify.model import ALL, scores
from qwen_core.data.decontaminate import Ngrams, cut_hits, find_ngrams, report
from qwen_core.data.keywords import Keywords, find_keywords
from qwen_core.data.pii import mask_pii
from qwen_core.data.rules import judge

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_SCORES = (("toxicity", "toxic"), ("quality", "low_quality"))


class Judged:
    """The documents of a part, and what became of each so far.

    Attributes:
        texts: As they are now; steps edit them.
        reasons: Why each was dropped, or `None`.
        is_code: Whether each is source code.
        scores: Of each classifier; NaN where it was not asked.
    """

    def __init__(self, table: pa.Table) -> None:
        """Begin with all documents.

        Args:
            table: Documents as ingested.
        """
        self._table = table
        self.texts: list[str] = table["text"].to_pylist()
        self.languages: list[str | None] = table["language"].to_pylist()
        self.reasons = np.full(table.num_rows, None, object)
        self.is_code = np.array([language == "code" for language in self.languages], bool)
        self.scores = {name: np.full(table.num_rows, np.nan) for name, _ in _SCORES}

    @property
    def open(self) -> Bools:
        """Documents that have no reason yet."""
        return np.asarray(self.reasons == None, bool)  # noqa: E711 - element by element

    def of(self, rows: Ints) -> tuple[list[str], list[str | None]]:
        """Take texts and languages of some rows.

        Args:
            rows: Which.

        Returns:
            Both.
        """
        numbers = rows.tolist()
        return [self.texts[row] for row in numbers], [self.languages[row] for row in numbers]

    def mask(self, kinds: Sequence[str]) -> Counter[str]:
        """Mask what identifies a person or opens a door, in dropped documents too: samples of them are shown.

        Args:
            kinds: Of `pii.KINDS`.

        Returns:
            How often each kind was masked in documents that are kept.
        """
        found: Counter[str] = Counter()
        for chosen in (self.open, ~self.open):
            rows = np.flatnonzero(chosen)
            texts, counts = mask_pii(pa.chunked_array([self.of(rows)[0]], pa.string()), self.is_code[rows], kinds)
            for row, text in zip(rows.tolist(), texts.to_pylist(), strict=True):
                self.texts[row] = text
            found = found or counts
        return found

    def result(self) -> pa.Table:
        """Bring all documents into a table, edited and scored; null where a classifier was not asked."""
        place = self._table.schema.get_field_index("text")
        table = self._table.set_column(place, "text", pa.array(self.texts, pa.string()))
        for name in ("quality", "toxicity"):
            scored = pa.array(self.scores[name], pa.float32(), from_pandas=True)
            table = table.append_column(f"{name}_score", scored)
        return table


def judge_by_rules(judged: Judged, limits: Mapping[str, Any]) -> Counter[str]:
    """Apply the quality rules; some take lines out of what they keep.

    Args:
        judged: All documents.
        limits: The recipe's `filter` section.

    Returns:
        Lines taken out, by reason.
    """
    verdict = judge(judged.texts, judged.languages, limits)
    judged.reasons = verdict.reasons
    for row, text in verdict.texts.items():
        judged.texts[row] = text
    return verdict.lines


def block_keywords(judged: Judged, keywords: Keywords, limits: Mapping[str, Any]) -> Counter[str]:
    """Drop prose with too many listed terms.

    Args:
        judged: The documents.
        keywords: The lists.
        limits: The recipe's `filter.keywords`.

    Returns:
        Documents that hold a term, by term.
    """
    rows = np.flatnonzero(judged.open & ~judged.is_code)
    texts, languages = judged.of(rows)
    hits = find_keywords(pa.array(texts, pa.string()), languages, keywords)
    judged.reasons[rows[hits.is_blocked(limits["min_hits"], limits["max_character_ratio"])]] = "blocked_keyword"
    return hits.terms


def decontaminate(judged: Judged, ngrams: Ngrams | None, limits: Mapping[str, Any]) -> dict[str, Any]:
    """Drop documents that hold a passage of an evaluation set, or cut it out.

    Args:
        judged: The documents.
        ngrams: Of the sets; `None` where the recipe names none.
        limits: The recipe's `filter.decontaminate`.

    Returns:
        Which sets and items were hit.
    """
    if ngrams is None:
        return {}
    rows = np.flatnonzero(judged.open)
    texts, _ = judged.of(rows)
    hits = find_ngrams(texts, ngrams)
    if limits["action"] == "drop":
        judged.reasons[rows[hits.is_hit]] = "contaminated"
        return report(hits, ngrams)
    cut = cut_hits(texts, hits, *(limits[name] for name in ("margin_chars", "min_piece_chars", "max_pieces")))
    for row, text in zip(rows.tolist(), cut, strict=True):
        if text is None:
            judged.reasons[row] = "contaminated"
        else:
            judged.texts[row] = text
    return report(hits, ngrams)


def drop_low_scores(
    judged: Judged,
    models: Mapping[str, str],
    thresholds: Mapping[str, Mapping[str, float]],
    limits: Mapping[str, Any],
) -> None:
    """Score what is left, and drop prose that is toxic or of low quality.

    Args:
        judged: The documents.
        models: Folders of the classifiers, by name; one that is not there is not asked.
        thresholds: Of a classifier, by language, where the recipe had them found.
        limits: The recipe's `filter` section, for all others.
    """
    for name, reason in _SCORES:
        if name not in models:
            continue
        rows = np.flatnonzero(judged.open)
        texts, languages = judged.of(rows)
        values = scores(models[name], texts, languages) if texts else np.zeros(0)
        judged.scores[name][rows] = values
        plain = limits["max_toxicity_score" if name == "toxicity" else "min_quality_score"]
        bounds = _bounds(languages, thresholds.get(name, {}), plain)
        is_bad = values > bounds if name == "toxicity" else values < bounds
        judged.reasons[rows[is_bad & ~judged.is_code[rows]]] = reason


def _bounds(languages: list[str | None], found: Mapping[str, float], plain: float) -> Floats:
    general = found.get(ALL, plain)
    return np.array([found.get(language or ALL, general) for language in languages], float)
