"""Recipe section of `filter`."""

from __future__ import annotations

import typing
from typing import Literal

from pydantic import Field

from qwen_core.config.base import Count, Ratio, Section

PiiKind = Literal["email", "phone", "resident_id", "bank_card", "ip", "api_key"]


class Filter(Section):
    """Quality rules with the published thresholds (Gopher, C4, FineWeb), classifiers and keyword lists."""

    languages: tuple[str, ...] = Field((), description="Keep these languages only; empty keeps all.")
    min_words: int = Field(50, ge=0, description="Gopher; a CJK character counts as a word here.")
    max_words: Count = Field(100_000, description="Gopher.")
    min_mean_word_length: float = Field(3.0, ge=0, description="Gopher; text in words only.")
    max_mean_word_length: float = Field(10.0, gt=0, description="Gopher; text in words only.")
    max_symbol_word_ratio: Ratio = Field(0.1, description="Gopher: # and … to words.")
    max_bullet_line_ratio: Ratio = Field(0.9, description="Gopher: lines that begin with a bullet.")
    max_ellipsis_line_ratio: Ratio = Field(0.3, description="Gopher: lines that end with an ellipsis.")
    min_alpha_word_ratio: Ratio = Field(0.8, description="Gopher: words that hold a letter.")
    max_duplicate_line_ratio: Ratio = Field(0.3, description="Gopher: lines that stand in the document before.")
    min_quality_score: Ratio = Field(0.1, description="Lower classifier scores are dropped as low_quality.")
    max_toxicity_score: Ratio = Field(0.9, description="Higher classifier scores are dropped as toxic.")
    mask_pii: tuple[PiiKind, ...] = Field(
        typing.get_args(PiiKind), description="What is masked in kept documents; source code: email, ip, api_key only."
    )
    keywords: tuple[str, ...] = Field(("bundled",), description="JSON files of terms per language.")
