"""Recipe section of `classifiers`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from qwen_core.config.base import Count, Ratio, Section

View = Literal["fasttext", "ngrams"]


class ExampleColumns(Section):
    """Where a file of examples has what is needed."""

    text: str = Field("text", description="Column of the text.")
    label: str = Field("label", description="Column of the label.")
    language: str = Field("language", description="Column of the language; a file may be without.")
    labels: dict[str, str] = Field({}, description='The label for each value of the column, such as {"1": "toxic"}.')
    fixed_language: str | None = Field(None, description="Language of the whole file, instead of a column.")


class Classifiers(Section):
    """Training of the quality and toxicity classifiers: fastText, n-grams of characters, or both together."""

    train: tuple[Literal["quality", "toxicity"], ...] = Field(
        ("quality", "toxicity"), description="Which are trained; filter asks these and no others."
    )
    quality_examples: tuple[str, ...] = Field(
        ("bundled",), description="Files of text and label (high, low): JSONL, CSV, TSV, Parquet."
    )
    toxicity_examples: tuple[str, ...] = Field(
        ("bundled",), description="Files of text and label (toxic, clean): JSONL, CSV, TSV, Parquet."
    )
    quality_positives: tuple[str, ...] = Field((), description="Reference texts, all of them high; also plain text.")
    quality_negatives: tuple[str, ...] = Field(
        (), description="Texts that are all low; the word `ingest` stands for a sample of the ingested corpus."
    )
    sample_documents: Count = Field(5000, description="Most documents of a language drawn from the ingested corpus.")
    columns: dict[str, ExampleColumns] = Field({}, description="Columns of a file, by its path or its name alone.")
    heldout_ratio: Ratio = Field(0.2, description="Share of the examples that measures the classifiers.")
    min_language_examples: Count = Field(500, description="Languages with fewer examples share one model.")
    quality_views: tuple[View, ...] = Field(("fasttext", "ngrams"), min_length=1, description="Models that score.")
    toxicity_views: tuple[View, ...] = Field(("ngrams",), min_length=1, description="Models that score.")
    calibration_folds: int = Field(3, ge=2, description="Of the cross-fitting that calibrates the scores.")
    quality_keep_ratio: Ratio | None = Field(
        None, description="Keep this share of each language's documents, instead of filter.min_quality_score."
    )
    toxicity_target_precision: Ratio | None = Field(
        None, description="Share of the dropped that are toxic (held-out), instead of filter.max_toxicity_score."
    )
    epochs: Count | None = Field(None, description="fastText's passes; unset, 5 to 25, fewer for many examples.")
    learning_rate: float = Field(0.5, gt=0, description="fastText's.")
    word_ngrams: Count = Field(2, description="fastText's longest run of words (Han: characters) that is a feature.")
    dim: Count = Field(16, description="Length of fastText's vectors.")
