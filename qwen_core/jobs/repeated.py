"""Lines or paragraphs that many documents share, found over the whole corpus and cut from all documents but the first.

    part ─▶ (hash of each line, document) ─▶ shuffle by hash ─▶ in how many documents? ─▶ part without such lines

Every text is read twice for it, also those of parts that an earlier run has deduplicated: what is repeated is a matter
of the whole corpus.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from qwen_core.data import tally
from qwen_core.data.lines import find_lines, repeated_lines, without_lines
from qwen_core.jobs.clusters import ROW_BITS, by_key, collect
from qwen_core.jobs.context import Context
from qwen_core.jobs.parts import Item, Made, is_own, make_parts, part_fingerprint
from qwen_core.parts import Part, read_rows, row_batches

_PARTITION_BYTES = 32_000_000  # of texts; a line takes 16 bytes in the shuffle


def cut_repeated(context: Context, parts: Sequence[Part]) -> list[Part]:
    """Cut repeated lines or paragraphs.

    Args:
        context: The stage's; its section names the unit and the bounds.
        parts: Deduplicated.

    Returns:
        The parts, written anew where something was cut.
    """
    section = context.section
    unit, min_chars = section.repeated, section.min_repeated_chars

    def repeated(batch: pa.Table) -> pa.Table:
        hashes = batch["hash"].to_numpy().view(np.uint64)
        found, first = repeated_lines(hashes, batch["number"].to_numpy(), section.min_repeats)
        return pa.table({"hash": found, "first": first})

    partitions = -(-sum(part.text_bytes for part in parts) // _PARTITION_BYTES)
    files = [part.uri for part in parts]
    shared = by_key(files, functools.partial(_lines, unit=unit, min_chars=min_chars), repeated, "hash", partitions)
    hashes, first = collect(shared, hash=np.uint64, first=np.int64)
    order = np.argsort(hashes)
    found = hashes[order], first[order]
    digest = hashlib.blake2b(found[0].tobytes() + found[1].tobytes(), digest_size=8).hexdigest()
    items = [
        Item(
            part_fingerprint(context, part=part.fingerprint, repeated=[unit, min_chars, number, digest]),
            part.text_bytes,
            {"uri": part.uri, "part": number, **_before(context, part)},
        )
        for number, part in enumerate(parts)
    ]
    return make_parts(context, items, _cut, {"found": found, "unit": unit, "min_chars": min_chars})


def _lines(file: str, part: int, unit: Any, min_chars: int) -> pa.Table:
    """List the lines of one part, each of a document once."""
    pairs, first = [np.zeros((2, 0), np.int64)], part << ROW_BITS
    for table in row_batches(file, ["text"]):
        lines = find_lines(table["text"].to_pylist(), unit, min_chars)
        pairs.append(np.unique(np.stack((lines.hashes.view(np.int64), first + lines.text)), axis=1))
        first += table.num_rows
    hashes, numbers = np.concatenate(pairs, axis=1)
    return pa.table({"hash": hashes, "number": numbers})


def _cut(given: dict[str, Any], options: dict[str, Any]) -> Made:
    """Write a part without its repeated lines; a document of which nothing is left is dropped."""
    made, told = Made([], {"characters_cut": 0}), [given["told"]]
    if given["dropped"]:
        made.dropped.append(read_rows(given["dropped"]))

    def tables() -> Iterator[pa.Table]:
        first = given["part"] << ROW_BITS
        for table in row_batches(given["uri"]):
            numbers = first + np.arange(table.num_rows, dtype=np.int64)
            table, reasons, cut = _cut_batch(table, numbers, options)
            first += table.num_rows
            told.append(tally.tally(table, reasons))
            made.told["characters_cut"] += cut
            is_empty = pa.array(reasons != None)  # noqa: E711 - element by element
            gone = table.filter(is_empty).select(["id", "source", "language"])
            for name, value in (("reason", "repeated_lines"), ("kept", "")):
                gone = gone.append_column(name, pa.array([value] * gone.num_rows, pa.string()))
            made.dropped.append(gone)
            yield table.filter(pc.invert(is_empty))
        made.told.update(tally.merge(told))

    return replace(made, tables=tables())


def _cut_batch(
    table: pa.Table, numbers: npt.NDArray[np.int64], options: dict[str, Any]
) -> tuple[pa.Table, npt.NDArray[np.object_], int]:
    """Cut repeated lines out of a batch: its documents, why each is dropped, and how many characters went."""
    texts, cut = without_lines(
        table["text"].to_pylist(), numbers, options["found"], options["unit"], options["min_chars"]
    )
    reasons = np.full(len(texts), None, dtype=object)
    reasons[np.array([not text.strip() for text in texts], bool)] = "repeated_lines"
    table = table.set_column(table.schema.get_field_index("text"), "text", pa.array(texts, pa.string()))
    return table, reasons, int(cut.sum())


def _before(context: Context, part: Part) -> dict[str, Any]:
    """Tell what this stage has dropped from a part already; what an earlier stage dropped stays with that."""
    if not is_own(context, part):
        return {"told": {}, "dropped": ""}
    funnel = [row for row in part.told.get("funnel", ()) if row[2] != tally.KEPT]
    return {"told": {"funnel": funnel, "samples": part.told.get("samples", {})}, "dropped": part.dropped}
