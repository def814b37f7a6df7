"""`ingest`: files of many formats ─▶ documents, cleaned, cut and labelled by language.

inputs ─▶ files ─▶ parts of a few MB ─▶ (one Ray Data task each) read ─▶ chunk ─▶ normalise ─▶ label ─▶ Parquet
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qwen_core.artifacts import Outcome
from qwen_core.data.clean import chunk, normalise
from qwen_core.data.documents import SCHEMA, document_id
from qwen_core.data.language import label
from qwen_core.data.read import Raw, read_file
from qwen_core.demo import environment
from qwen_core.errors import InputError
from qwen_core.jobs.context import Context, connect_ray
from qwen_core.jobs.corpus import add_up, map_parts, write_documents
from qwen_core.jobs.sources import Source, document_sources

_PART_BYTES = 3_000_000
_ROWS_AT_ONCE = 2000
_MAX_FAULTS = 100


def run(context: Context) -> Outcome:
    """Read all inputs.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome; `rows` counts documents.

    Raises:
        InputError: There is nothing to read, or no document came out of it.
    """
    connect_ray()
    section = context.section
    found = document_sources(context.recipe)
    parts = [
        {
            "index": index,
            "sources": [vars(source) for source in part],
            "target": context.output(f"documents/part-{index:05d}.parquet"),
        }
        for index, part in enumerate(_parts(found))
    ]
    options = {
        "text_column": section.text_column,
        "max_chars": section.max_document_chars,
        "min_chars": section.min_document_chars,
    }
    told = map_parts(context, parts, _ingest_part, options, unit="parts")
    total = add_up(told)
    if not total["rows"]:
        files, dropped = f"{len(found)} file{'s' * (len(found) > 1)}", total["drops"] or "nothing"
        raise InputError(
            f"no document came out of {files}; dropped: {dropped}. Records need their text under "
            f"'{section.text_column}'; another name: --set ingest.text_column=NAME"
        )
    faults = [fault for part in told for fault in part["faults"]][:_MAX_FAULTS]
    return Outcome(
        rows=total["rows"],
        columns={field.name: str(field.type) for field in SCHEMA},
        drops=total["drops"],
        metrics={"files": len(found), "raw_bytes": sum(source.size for source in found)},
        details={
            "by_language": total["by_language"],
            "by_source": total["by_source"],
            "faults": faults,
            "text_bytes": total["text_bytes"],
        },
    )


def _parts(found: list[Source]) -> Iterator[list[Source]]:
    """Group files into parts of a few megabytes, in order."""
    part: list[Source] = []
    size = 0
    for source in found:
        part.append(source)
        size += source.size
        if size >= _PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _ingest_part(part: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Read one part and write its documents; tell the counts."""
    drops: Counter[str] = Counter()
    faults: list[dict[str, str]] = []
    tables = [
        _documents(rows, options["min_chars"], drops)
        for rows in _batches(_rows(part["sources"], options, drops, faults))
    ]
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    return {**write_documents(table, part["target"]), "drops": dict(drops), "faults": faults}


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, _ROWS_AT_ONCE)):
        yield batch


def _rows(
    files: list[dict[str, Any]], options: dict[str, Any], drops: Counter[str], faults: list[dict[str, str]]
) -> Iterator[dict[str, Any]]:
    """Read records and cut them into chunks."""
    for source in files:
        before = Counter(drops)
        path = Path(source["path"])
        for raw in _read(path, source["kind"], options["text_column"], drops):
            metadata = json.dumps({"path": source["path"], **raw.extra}, ensure_ascii=False)
            for number, text in enumerate(chunk(raw.text, options["max_chars"])):
                yield {
                    "id": document_id(source["path"], f"{raw.position}/{number}"),
                    "text": text,
                    "source": source["name"],
                    "url": raw.url,
                    "language": "code" if raw.is_code else None,
                    "timestamp": raw.timestamp,
                    "metadata": metadata,
                }
        faults += [{"path": source["path"], "reason": reason} for reason in (drops - before)]


def _read(path: Path, kind: str, text_column: str, drops: Counter[str]) -> Iterator[Raw]:
    if kind == "translation":
        yield Raw(environment.read_translation(path), "0")
    elif kind == "metadata":
        yield Raw(environment.read_metadata(path), "0")
    elif kind == "prose":  # licence files have no ending that tells
        yield Raw(path.read_text(encoding="utf-8", errors="replace"), "0")
    else:
        yield from read_file(path, text_column, drops)


def _documents(rows: list[dict[str, Any]], min_chars: int, drops: Counter[str]) -> pa.Table:
    """Clean a batch of rows, drop what is too short, label the rest."""
    columns = {name: [row.get(name) for row in rows] for name in SCHEMA.names}
    # A lone surrogate (from a JSON escape) is no text that UTF-8 could hold.
    columns["text"] = [text.encode("utf-8", "replace").decode() for text in columns["text"]]
    table = pa.table({n: columns[n] for n in SCHEMA.names if n not in ("language_score", "script")}).set_column(
        1, "text", normalise(pa.array(columns["text"], pa.string()))
    )
    length = pc.utf8_length(table["text"])
    drops["empty"] += int(pc.sum(pc.equal(length, 0)).as_py() or 0)
    drops["too_short"] += int(pc.sum(pc.and_(pc.greater(length, 0), pc.less(length, min_chars))).as_py() or 0)
    drops += Counter()  # forget zeros
    table = table.filter(pc.greater_equal(length, max(1, min_chars)))
    text = table["text"].combine_chunks() if table.num_rows else pa.array([], pa.string())
    language, score, script = label(text)
    is_code = np.asarray(pc.equal(pc.fill_null(table["language"].cast(pa.string()), ""), "code"))
    table = table.set_column(
        table.schema.get_field_index("language"), "language", pc.if_else(pa.array(is_code), "code", language)
    )
    table = table.append_column("language_score", pc.if_else(pa.array(is_code), pa.scalar(1.0, pa.float32()), score))
    return table.append_column("script", script).select(SCHEMA.names).cast(SCHEMA)
