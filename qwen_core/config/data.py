"""Recipe sections of the corpus DAG: ingest, classifiers, filter, dedup."""

from __future__ import annotations

import typing
from typing import Literal

from pydantic import Field

from qwen_core.config.base import Count, Ratio, Section


class Ingest(Section):
    """Where documents come from and how their text is cleaned."""

    inputs: tuple[str, ...] = Field(
        (),
        description="Files, folders or globs; the words 'environment' and 'bundled' name the demo's own data.",
    )
    text_column: str = Field("text", description="Column or JSON key that holds the text.")
    max_document_chars: Count = Field(20_000, description="Longer documents are cut at paragraph bounds.")
    min_document_chars: Count = Field(20, description="Shorter ones are dropped as too_short.")
    max_raw_bytes: Count | None = Field(
        None, description="Stop taking new files of 'environment' after this many bytes."
    )
    rows_per_file: Count = Field(20_000, description="Documents in one output file.")


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


class Dedup(Section):
    """Exact and near-duplicate removal (MinHash LSH)."""

    shingle_words: Count = Field(5, description="Words (CJK: characters) in one shingle.")
    num_buckets: Count = Field(14, description="LSH bands; more of them find less alike documents.")
    hashes_per_bucket: Count = Field(8, description="Hashes that must all agree; more of them ask for more alikeness.")
    seed: int = Field(1, description="Seed of datasketch's permutations; signatures of two seeds cannot meet.")
    rows_per_file: Count = Field(20_000, description="Documents in one output file.")
