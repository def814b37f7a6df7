"""Recipe section of `dedup`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from qwen_core.config.base import Count, Section


class Dedup(Section):
    """Exact and near-duplicate removal (MinHash LSH), and of lines that many documents share."""

    later: ClassVar[frozenset[str]] = frozenset({"keep"})

    shingle_words: Count = Field(5, description="Words (in scripts without spaces: characters) in one shingle.")
    num_buckets: Count = Field(20, description="LSH bands; more of them find less alike documents. FineWeb: 14.")
    hashes_per_bucket: Count = Field(8, description="Hashes that must all agree; more of them ask for more alikeness.")
    seed: int = Field(1, description="Seed of datasketch's permutations; signatures of two seeds cannot meet.")
    keep: Literal["best", "first"] = Field(
        "best",
        description="Which of each cluster stays: the best and longest, whenever it came, or the one that came first, "
        "so that what was trained on stays in the corpus when its like comes later.",
    )
    repeated: Literal["keep", "line", "paragraph"] = Field(
        "keep", description="Whether lines or paragraphs that stand in many documents are cut out of all but the first."
    )
    min_repeats: int = Field(6, ge=2, description="Documents that share a line or paragraph before it is cut.")
    min_repeated_chars: Count = Field(20, description="Shorter lines or paragraphs are never cut.")
