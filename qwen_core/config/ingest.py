"""Recipe section of `ingest`."""

from __future__ import annotations

from pydantic import Field

from qwen_core.config.base import Count, Section


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
