"""Sources to documents, for one part of `ingest`: read, clean, cut, label, in batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qwen_core.data.ingest import Cleaning, batched, to_documents
from qwen_core.data.read import Fields, Report, Rows, read_batches
from qwen_core.demo import environment
from qwen_core.errors import InputError


def part_options(section: Any) -> dict[str, Any]:
    """Bring the recipe's section into what every part needs.

    Args:
        section: `ingest`.

    Returns:
        Plain values, for `document_tables`.
    """
    return {
        "fields": Fields(**section.columns.model_dump()),
        "max_record_bytes": section.max_record_bytes,
        "labelling": {
            "model": section.language_model,
            "min_score": section.min_language_score,
            "prior_weight": section.language_prior,
            "find_code": section.recognise_code,
        },
        "cleaning": Cleaning(
            max_chars=section.max_document_chars,
            min_chars=section.min_document_chars,
            fix_mojibake=section.fix_mojibake,
            width=section.width,
            punctuation=section.punctuation,
            drop_noise_lines=section.drop_noise_lines,
        ),
    }


def document_tables(sources: Iterable[dict[str, Any]], options: dict[str, Any], report: Report) -> Iterator[pa.Table]:
    """Read sources and make documents of them, a batch at a time.

    Args:
        sources: `vars` of each `Source`.
        options: See `part_options`.
        report: Gets counts and faults.

    Yields:
        Documents, in the sources' order; memory holds one batch.
    """
    raw = (table for source in sources for table in _read(source, options, report))
    for table in batched(raw):
        yield to_documents(table, options["cleaning"], report, options["labelling"])


def told_of(report: Report) -> dict[str, Any]:
    """Bring a report into what a part tells.

    Args:
        report: Of all the part's sources.

    Returns:
        `records`, `drops`, `repairs` and `faults`, as plain JSON.
    """
    return {
        "records": report.records,
        "drops": dict(report.drops),
        "repairs": dict(report.repairs),
        "faults": report.faults,
    }


def _read(source: dict[str, Any], options: dict[str, Any], report: Report) -> Iterator[pa.Table]:
    """Read one source; its short name stands where a record names none."""
    path, kind = source["path"], source["kind"]
    report.path = path
    if kind in ("unreadable_path", "unknown_format"):
        report.drop(kind, count=source["count"])
        return
    limit = options["max_record_bytes"]
    if kind in ("translation", "metadata"):
        rows = Rows(options["fields"], report, limit)
        read = environment.read_translation if kind == "translation" else environment.read_metadata
        rows.add(read(Path(path)), 0, {})
        tables: Iterator[pa.Table] = iter([rows.take()])
    else:
        tables = read_batches(
            path, options["fields"], report, None if kind == "file" else kind, source["start"], source["end"], limit
        )
    for table in tables:
        named = pc.fill_null(table["source"], source["name"])
        yield table.set_column(table.schema.get_field_index("source"), "source", named)
    if path in report.unread and source["content_hash"]:
        raise InputError(
            f"{path} was there when this run began, and cannot be opened now. Every machine of the cluster must see "
            f"the inputs under the same path; the same command goes on where it stopped"
        )
