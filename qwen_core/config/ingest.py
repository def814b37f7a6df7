"""Recipe section of `ingest`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from qwen_core.config.base import Count, Ratio, Section


def _listed(value: Any) -> Any:
    """Let one name stand for a list of one."""
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
"""Names of keys or columns; one name may stand without a list, and `a.b` is key `b` of the mapping under `a`."""


class Columns(Section):
    """Which key of a JSON record, or column of a table, holds what."""

    text: Names = Field(
        ("text",), min_length=1, description="Hold the text; several that a record has are joined by an empty line."
    )
    html: Names = Field((), description="Hold a page whose main text is taken, where there is no text.")
    source: Names = Field(
        (), description="Hold the name of what a record belongs to, instead of the file's; the first counts."
    )
    url: Names = Field(("url", "uri", "link"), description="Hold the address; the first counts.")
    timestamp: Names = Field(("timestamp", "date", "created_at"), description="Hold the time; the first counts.")
    licence: Names = Field(("licence", "license"), description="Hold the licence, for metadata; the first counts.")
    id: Names = Field(("id",), description="Hold the record's own identifier, for metadata; the first counts.")


class Ingest(Section):
    """Where documents come from and how their text is cleaned."""

    inputs: tuple[str, ...] = Field(
        (),
        description="Files, folders or globs, local or `s3://`; the words 'environment' and 'bundled' name the demo's "
        "own data.",
    )
    columns: Columns = Field(default_factory=Columns)
    max_document_chars: Count = Field(20_000, description="Longer documents are cut at paragraph bounds.")
    min_document_chars: Count = Field(20, description="Shorter ones are dropped as too_short.")
    max_record_bytes: Count = Field(16 << 20, description="Longer records are dropped as record_too_large, unread.")
    max_raw_bytes: Count | None = Field(
        None, description="Stop taking new files of 'environment' after this many bytes."
    )
    fix_mojibake: bool = Field(
        True, description="Mend UTF-8 that was decoded as Latin-1 or Windows-1252 (ftfy); not in code."
    )
    width: Literal["keep", "half"] = Field(
        "keep", description="`half`: ASCII for full-width letters and digits; not in code."
    )
    punctuation: Literal["keep", "ascii", "chinese"] = Field(
        "keep",
        description="`ascii`: ASCII marks for Chinese and typographic ones; `chinese`: full-width marks after Chinese "
        "characters; not in code.",
    )
    drop_noise_lines: bool = Field(
        False, description="Drop lines without a letter or number, soft hyphens and invisible fillers; not in code."
    )
    base: str | None = Field(
        None,
        description="Run key, or URI of an ingest manifest, to go on from: its documents come first, and files that it "
        "has read are skipped.",
    )
    part_bytes: Count = Field(16 << 20, description="Raw bytes that make one part, the unit of work and of storage.")
    language_model: str | None = Field(
        None,
        description="fastText model (.bin or .ftz) that labels languages instead of the embedded one: lid.176, GlotLID "
        "and the like; a path that every worker sees.",
    )
    min_language_score: dict[str, Ratio] = Field(
        {}, description="Lowest score by language, `*` for all others; below it a document's language is `und`."
    )
    language_prior: Ratio = Field(
        0.3,
        description="How much a language's share of the web counts in the embedded model: 0 where rare languages are "
        "as likely as common ones.",
    )
    recognise_code: bool = Field(True, description="Label text that reads as source code `code`, whatever its file.")
