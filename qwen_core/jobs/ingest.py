"""`ingest`: files of many formats ─▶ documents, cleaned, cut and labelled by language.

inputs ─▶ files ─▶ parts of some MB ─▶ (one Ray Data task each) read ─▶ clean ─▶ chunk ─▶ label ─▶ Parquet

A part is known by the content of its files: what an earlier run has read, with the same settings, is not read again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from qwen_core.artifacts import Manifest, Outcome
from qwen_core.data import tally
from qwen_core.data.documents import SCHEMA
from qwen_core.data.read import Report
from qwen_core.errors import InputError
from qwen_core.jobs.base import base_of, check_settings, reading_settings
from qwen_core.jobs.context import Context, connect_ray
from qwen_core.jobs.corpus import corpus_outcome
from qwen_core.jobs.parts import Item, Made, make_parts, part_fingerprint
from qwen_core.jobs.reading import document_tables, part_options, told_of
from qwen_core.jobs.sources import Source, document_sources
from qwen_core.parts import Part, PartStore, parts_of

_MAX_FAULTS = 1000


def run(context: Context) -> Outcome:
    """Read all inputs; after a base, only what it has not read.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome; `rows` counts documents.

    Raises:
        InputError: There is nothing to read, or no document came out of it.
    """
    connect_ray()
    found = document_sources(context.recipe)
    base = base_of(context.recipe, context.store)
    earlier = _base_parts(context, base)
    known = {digest or path for part in earlier for path, digest in part.told["files"]}
    fresh = [source for source in found if (source.content_hash or source.path) not in known]
    options = part_options(context.section)
    parts = [*earlier, *make_parts(context, list(_items(context, fresh)), _ingest_part, options)]
    outcome = corpus_outcome(context, parts)
    if not outcome.rows:
        files, dropped = f"{len(found)} file{'s' * (len(found) > 1)}", outcome.drops or "nothing"
        raise InputError(
            f"no document came out of {files}; dropped: {dropped}. Records need their text under "
            f"'{', '.join(context.section.columns.text)}'; another name: --set ingest.columns.text=NAME"
        )
    outcome.metrics |= {
        "files": float(len(found)),
        "files_known": float(len(found) - len(fresh)),
        "raw_bytes": float(sum(source.size for source in fresh)),
    }
    faults = [fault for part in parts for fault in part.told.get("faults", [])]
    repairs = sum((Counter(part.told.get("repairs", {})) for part in parts), Counter[str]())
    outcome.details |= {"faults": faults[:_MAX_FAULTS], "repairs": dict(repairs)}
    if base:
        outcome.details["first_read_at"] = base.details.get("first_read_at", base.created_at)
    return outcome


def _base_parts(context: Context, base: Manifest | None) -> list[Part]:
    """Read the parts of the base, with all that they tell: a list of parts has not all of it."""
    if base:
        check_settings(context.attempt.config["ingest"], base.config["ingest"])
    listed = parts_of(base) if base else []
    told = PartStore(context.store.root, context.stage.name).find(part.fingerprint for part in listed)
    return [told.get(part.fingerprint, part) for part in listed]


def _items(context: Context, found: list[Source]) -> Iterator[Item]:
    """Group files into parts of some megabytes, in order."""
    settings = reading_settings(context.section.model_dump(mode="json"))
    settings["language_model"] = context.attempt.sources.get("language_model", "")
    part: list[Source] = []
    size = 0
    for number, source in enumerate(found, 1):
        part.append(source)
        size += source.size
        if size >= context.section.part_bytes or number == len(found):
            told = [[one.path, one.name, one.kind, one.start, one.end, one.content_hash] for one in part]
            fingerprint = part_fingerprint(context, settings=settings, sources=told)
            yield Item(fingerprint, size, {"sources": [vars(one) for one in part]})
            part, size = [], 0


def _ingest_part(given: dict[str, Any], options: dict[str, Any]) -> Made:
    """Read the files of one part, a batch of documents at a time."""
    sources, report, told = given["sources"], Report(), dict[str, Any]()

    def tables() -> Iterator[pa.Table]:
        counts = []
        yield SCHEMA.empty_table()
        for table in document_tables(sources, options, report):
            counts.append(tally.tally(table))
            yield table
        told.update(told_of(report))
        names = {source["name"] for source in sources}
        lost = tally.lost(names.pop() if len(names) == 1 else "", told["drops"])
        told.update(tally.merge([*counts, lost]))
        told["files"] = [[source["path"], source["content_hash"]] for source in sources]

    return Made(tables(), told)
