"""Recipe section of `dedup`."""

from __future__ import annotations

from pydantic import Field

from qwen_core.config.base import Count, Section


class Dedup(Section):
    """Exact and near-duplicate removal (MinHash LSH)."""

    shingle_words: Count = Field(5, description="Words (CJK: characters) in one shingle.")
    num_buckets: Count = Field(14, description="LSH bands; more of them find less alike documents.")
    hashes_per_bucket: Count = Field(8, description="Hashes that must all agree; more of them ask for more alikeness.")
    seed: int = Field(1, description="Seed of datasketch's permutations; signatures of two seeds cannot meet.")
    rows_per_file: Count = Field(20_000, description="Documents in one output file.")
