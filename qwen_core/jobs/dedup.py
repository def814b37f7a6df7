"""`dedup`: kept documents ─▶ one of each, exact and near duplicates dropped.

    part ─▶ sketch (text hash, MinHash bands: kept for later runs) ─▶ clusters ─▶ best of each ─▶ part without the rest
                                                                                                  └─▶ repeated lines cut

MinHash LSH: documents that agree in one band of `hashes_per_bucket` values count as near duplicates; with 20 bands of
8, half of the pairs at a Jaccard similarity of 0.66 are found, 97% at 0.8 (Leskovec et al., Mining of Massive Datasets,
chapter 3). FineWeb has 14 bands: on a newswire of 254 pairs at 0.8 or more they find 99.7% of them, 20 find 99.96%.

A corpus that has grown is compared by the sketches of its earlier parts; their text is not read again, save that of
the parts that lose a document, which are written anew. A part that loses none is taken over as it is. The best of a
cluster is the best whenever it came, so that a corpus that has grown holds what one built at once would hold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from qwen_core.artifacts import Outcome
from qwen_core.data import tally
from qwen_core.data.components import keepers
from qwen_core.data.minhash import sketch
from qwen_core.errors import InputError
from qwen_core.jobs.clusters import ROW_BITS, Clusters, find_clusters
from qwen_core.jobs.context import Context, connect_ray
from qwen_core.jobs.corpus import corpus_outcome
from qwen_core.jobs.parts import Item, Made, make_parts, part_fingerprint
from qwen_core.jobs.repeated import cut_repeated
from qwen_core.parts import Part, parts_of, read_rows, row_batches
from qwen_core.tracking.corpus_figures import clusters_figure, log_counts

_SKETCHED = ("shingle_words", "num_buckets", "hashes_per_bucket", "seed")
_EXAMPLES = 10
_READERS = 8
_ROW = (1 << ROW_BITS) - 1
Ints = npt.NDArray[np.int64]


def run(context: Context) -> Outcome:
    """Find duplicates over all parts and drop them.

    Args:
        context: Recipe, inputs and places.

    Returns:
        The outcome, with the counts of exact and near duplicates and a report of the clusters.

    Raises:
        InputError: The corpus is empty.
    """
    connect_ray()
    parts = parts_of(context.inputs["filter"])
    rows = sum(part.rows for part in parts)
    if not rows:
        raise InputError("there is no document to compare: the corpus that filter left is empty")
    sketches = _sketches(context, parts)
    found = find_clusters([part.uri for part in sketches], rows, context.section.num_buckets + 1)
    known = _looked_up(sketches, found.nodes)
    left = _write(context, parts, _dropped(found, known, context.section.keep))
    if context.section.repeated != "keep":
        left = cut_repeated(context, left)
    outcome = corpus_outcome(context, left, context.inputs["filter"].rows)
    report = _report(found, known)
    outcome.details |= report
    outcome.metrics |= {name: float(report[name]) for name in ("clusters", "largest_cluster")}
    if report["clusters"]:
        log_counts(context.run, "clusters", ("least_size", "clusters"), report["cluster_sizes"])
        context.run.log_figure(clusters_figure(report["cluster_sizes"]), "plots/clusters.png")
    return outcome


def _sketches(context: Context, parts: Sequence[Part]) -> list[Part]:
    """Sketch the parts that no earlier run has sketched."""
    settings = {name: getattr(context.section, name) for name in _SKETCHED}
    items = [
        Item(part_fingerprint(context, part=part.fingerprint, sketch=settings), part.text_bytes, {"uri": part.uri})
        for part in parts
    ]
    return make_parts(context, items, _sketch_part, settings, what="sketches")


def _sketch_part(given: dict[str, Any], settings: dict[str, Any]) -> Made:
    """Compute what is needed to compare one part's documents, a few hundred bytes each."""
    tables = row_batches(given["uri"], ["id", "text", "quality_score"])
    return Made(_sketch(table, settings) for table in tables)


def _sketch(table: pa.Table, settings: dict[str, Any]) -> pa.Table:
    found = sketch(table["text"].to_pylist(), **settings)
    bands = pa.FixedSizeListArray.from_arrays(pa.array(found.bands.reshape(-1)), settings["num_buckets"])
    columns = {
        "id": table["id"],
        "exact": pa.array(found.exact),
        "bands": bands,
        "quality_score": table["quality_score"],
        "text_bytes": pc.binary_length(table["text"]).cast(pa.int64()),
    }
    return pa.table(columns)


def _looked_up(sketches: Sequence[Part], nodes: Ints) -> dict[str, npt.NDArray[Any]]:
    """Read what is known of some documents: id, quality, length, exact hash."""
    known: dict[str, npt.NDArray[Any]] = {
        "id": np.full(len(nodes), "", "S16"),
        "quality_score": np.zeros(len(nodes)),
        "text_bytes": np.zeros(len(nodes), np.int64),
        "exact": np.zeros(len(nodes), np.uint64),
    }
    bounds = np.searchsorted(nodes, np.arange(len(sketches) + 1) << ROW_BITS)

    def read(number: int) -> None:
        chosen = slice(bounds[number], bounds[number + 1])
        table = read_rows(sketches[number].uri, list(known))
        for name, column in known.items():
            column[chosen] = table[name].to_numpy()[nodes[chosen] & _ROW]

    with ThreadPoolExecutor(_READERS) as pool:
        list(pool.map(read, np.flatnonzero(np.diff(bounds)).tolist()))
    return known


def _dropped(found: Clusters, known: dict[str, npt.NDArray[Any]], keep: str) -> pa.Table:
    """Choose the best of each cluster; the others go.

    Of documents that are equal but for case and white space all but one are exact duplicates: the one that stays, or,
    where none of them does, the first, which is a near duplicate of what stays.

    Returns:
        `number` (rising), `reason`, `kept` (the id of what stays) of each document that goes.
    """
    alike = np.zeros(len(found.nodes), np.int64)
    ranks = (known["quality_score"], known["text_bytes"]) if keep == "best" else (alike, alike)
    numbers, stays = keepers(found.nodes, found.labels, *ranks)
    is_dropped = np.isin(found.nodes, numbers, assume_unique=True)
    order = np.lexsort((found.nodes, is_dropped, known["exact"]))
    repeats = np.zeros(len(order), bool)
    repeats[order[1:]] = known["exact"][order][1:] == known["exact"][order][:-1]
    reasons = np.where(repeats, "exact_duplicate", "near_duplicate")[is_dropped]
    kept = known["id"][np.searchsorted(found.nodes, stays)].astype("U16")
    return pa.table({"number": numbers, "reason": pa.array(reasons.tolist(), pa.string()), "kept": kept.tolist()})


def _write(context: Context, parts: Sequence[Part], dropped: pa.Table) -> list[Part]:
    """Write the parts that lose documents; the others are taken over."""
    numbers = dropped["number"].to_numpy()
    bounds = np.searchsorted(numbers, np.arange(len(parts) + 1) << ROW_BITS)
    items: dict[int, Item] = {}
    for place in np.flatnonzero(np.diff(bounds)).tolist():
        part = parts[place]
        told = dropped.slice(bounds[place], bounds[place + 1] - bounds[place]).to_pydict()
        told["number"] = [number & _ROW for number in told["number"]]
        digest = hashlib.blake2b(json.dumps(told).encode(), digest_size=8).hexdigest()
        fingerprint = part_fingerprint(context, part=part.fingerprint, dropped=digest)
        items[place] = Item(fingerprint, part.text_bytes, {"uri": part.uri, **told})
    written = dict(zip(items, make_parts(context, list(items.values()), _without, None), strict=True))
    return [written.get(place, part) for place, part in enumerate(parts)]


def _without(given: dict[str, Any], _: None) -> Made:
    """Leave documents out of a part."""
    made, numbers = Made([]), np.asarray(given["number"])

    def tables() -> Iterator[pa.Table]:
        told, first = [], 0
        for table in row_batches(given["uri"]):
            here = slice(*np.searchsorted(numbers, (first, first + table.num_rows)))
            rows, why = numbers[here] - first, given["reason"][here]
            reasons = np.full(table.num_rows, None, object)
            reasons[rows] = why
            told.append(tally.tally(table, reasons))
            gone = table.select(["id", "source", "language"]).take(pa.array(rows))
            gone = gone.append_column("reason", pa.array(why, pa.string()))
            made.dropped.append(gone.append_column("kept", pa.array(given["kept"][here], pa.string())))
            yield table.filter(pa.array(reasons == None))  # noqa: E711 - element by element
            first += table.num_rows
        made.told.update(tally.merge(told))

    return replace(made, tables=tables())


def _report(found: Clusters, known: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Tell how many clusters there are, how large, and name some by their documents' ids."""
    labels, sizes = np.unique(found.labels, return_counts=True)
    powers = 2 ** np.arange(1, 1 + int(sizes.max(initial=1)).bit_length())
    shown = np.argsort(-sizes, kind="stable")[:_EXAMPLES]
    examples = [
        {"size": int(sizes[place]), "ids": known["id"][found.labels == labels[place]][:5].astype("U16").tolist()}
        for place in shown
    ]
    return {
        "clusters": len(labels),
        "largest_cluster": int(sizes.max(initial=0)),
        "cluster_sizes": {str(low): int(((sizes >= low) & (sizes < 2 * low)).sum()) for low in powers.tolist()},
        "examples": examples,
    }
