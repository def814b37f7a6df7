"""Recipe section of `classifiers`."""

from __future__ import annotations

from pydantic import Field

from qwen_core.config.base import Count, Ratio, Section


class Classifiers(Section):
    """Training of the fastText quality and toxicity classifiers."""

    quality_examples: tuple[str, ...] = Field(("bundled",), description="JSONL files of text and label (high, low).")
    toxicity_examples: tuple[str, ...] = Field(
        ("bundled",), description="JSONL files of text and label (toxic, clean)."
    )
    heldout_ratio: Ratio = Field(0.2, description="Share of the examples that measures the classifiers.")
    epochs: Count = Field(25, description="Passes over the examples.")
    learning_rate: float = Field(0.5, gt=0, description="fastText's.")
    word_ngrams: Count = Field(2, description="Longest run of words (CJK: characters) that is a feature.")
    dim: Count = Field(32, description="Length of a feature's vector.")
