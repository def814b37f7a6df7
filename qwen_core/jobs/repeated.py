"""Lines or paragraphs that many documents share, found over the whole corpus and cut from all documents but the first.

    part ─▶ (hash of each line, document) ─▶ shuffle by hash ─▶ in how many documents? ─▶ part without such lines

Every text is read twice for it, also those of parts that an earlier run has deduplicated: what is repeated is a matter
of the whole corpus.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from qwen_core.data import tally
from qwen_core.data.lines import find_lines, repeated_lines, without_lines
from qwen_core.jobs.clusters import ROW_BITS, collect
from qwen_core.jobs.context import Context
from qwen_core.jobs.parts import Item, Made, is_own, make_parts, part_fingerprint
from qwen_core.parts import Part, read_rows

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
    files = pa.table({"file": [part.uri for part in parts], "part": np.arange(len(parts))})
    partitions = max(1, -(-sum(part.text_bytes for part in parts) // _PARTITION_BYTES))

    def lines_of(batch: pa.Table) -> pa.Table:
        tables = [_lines(*row, unit, min_chars) for row in zip(*(c.to_pylist() for c in batch.columns), strict=True)]
        return pa.concat_tables(tables)

    def repeated(batch: pa.Table) -> pa.Table:
        hashes = batch["hash"].to_numpy().view(np.uint64)
        found, first = repeated_lines(hashes, batch["number"].to_numpy(), section.min_repeats)
        return pa.table({"hash": found, "first": first})

    if partitions == 1:  # one task sees every line: a shuffle would only take its seconds
        table = ray.get(ray.remote(num_cpus=1)(lambda batch: repeated(lines_of(batch))).remote(files))
        hashes, first = table["hash"].to_numpy(), table["first"].to_numpy()
    else:
        shuffled = (
            ray.data.from_arrow(files)
            .repartition(len(parts))
            .map_batches(lines_of, batch_size=1, batch_format="pyarrow")
            .repartition(partitions, keys=["hash"])
            .map_batches(repeated, batch_size=None, batch_format="pyarrow")
        )
        hashes, first = collect(shuffled, hash=np.uint64, first=np.int64)
    order = np.argsort(hashes)
    found = hashes[order], first[order]
    digest = hashlib.blake2b(found[0].tobytes() + found[1].tobytes(), digest_size=8).hexdigest()
    items = [
        Item(
            part_fingerprint(context, part=part.fingerprint, repeated=[unit, min_chars, digest]),
            part.text_bytes,
            {"uri": part.uri, "part": number, **_before(context, part)},
        )
        for number, part in enumerate(parts)
    ]
    return make_parts(context, items, _cut, {"found": found, "unit": unit, "min_chars": min_chars})


def _lines(file: str, part: int, unit: Any, min_chars: int) -> pa.Table:
    """List the lines of one part, each of a document once."""
    texts = read_rows(file, ["text"])["text"].to_pylist()
    lines = find_lines(texts, unit, min_chars)
    pairs = np.unique(np.stack((lines.hashes.view(np.int64), (part << ROW_BITS) + lines.text)), axis=1)
    return pa.table({"hash": pairs[0], "number": pairs[1]})


def _cut(given: dict[str, Any], options: dict[str, Any]) -> Made:
    """Write a part without its repeated lines; a document of which nothing is left is dropped."""
    table = read_rows(given["uri"])
    numbers = (given["part"] << ROW_BITS) + np.arange(table.num_rows, dtype=np.int64)
    texts, cut = without_lines(
        table["text"].to_pylist(), numbers, options["found"], options["unit"], options["min_chars"]
    )
    table = table.set_column(table.schema.get_field_index("text"), "text", pa.array(texts, pa.string()))
    is_empty = np.array([not text.strip() for text in texts], bool)
    reasons = np.where(is_empty, "repeated_lines", None).astype(object)
    told = tally.merge([tally.tally(table, reasons), given["told"]])
    gone = table.filter(pa.array(is_empty)).select(["id", "source", "language"])
    gone = gone.append_column("reason", pa.array(["repeated_lines"] * gone.num_rows, pa.string()))
    gone = gone.append_column("kept", pa.array([""] * gone.num_rows, pa.string()))
    if given["dropped"]:
        gone = pa.concat_tables([read_rows(given["dropped"]), gone], promote_options="permissive")
    return Made([table.filter(pc.invert(pa.array(is_empty)))], {**told, "characters_cut": int(cut.sum())}, gone)


def _before(context: Context, part: Part) -> dict[str, Any]:
    """Tell what this stage has dropped from a part already; what an earlier stage dropped stays with that."""
    if not is_own(context, part):
        return {"told": {}, "dropped": ""}
    funnel = [row for row in part.told.get("funnel", ()) if row[2] != tally.KEPT]
    return {"told": {"funnel": funnel, "samples": part.told.get("samples", {})}, "dropped": part.dropped}
