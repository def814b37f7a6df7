"""Counts of a stage: what came, what stayed, what each reason took, by source and language; samples, histograms.

Every function works on one batch and gives plain JSON that `merge` adds up, in any order.

    funnel      [source, language, reason, documents, bytes] rows; reason "" is what stayed
    samples     for each reason a few dropped documents, chosen by hash
    histograms  counts in fixed bins
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

KEPT = ""
SAMPLES_PER_REASON = 5
_SNIPPET_CHARS = 400
BINS: dict[str, list[float]] = {
    "characters": [0, *(2.0**power for power in range(4, 21))],
    "language_score": [tenth / 10 for tenth in range(11)],
    "quality_score": [tenth / 10 for tenth in range(11)],
    "toxicity_score": [tenth / 10 for tenth in range(11)],
}
"""Bounds of each histogram's bins; what lies above is in the last one."""
Row = list[Any]


def tally(table: pa.Table, reasons: npt.NDArray[np.object_] | None = None) -> dict[str, Any]:
    """Count a batch of documents.

    Args:
        table: Documents, as they came.
        reasons: Why each is dropped, `None` where it stays; all stay where it is left out.

    Returns:
        `funnel`, `samples`, `histograms`.
    """
    told = reasons if reasons is not None else np.full(table.num_rows, None, object)
    reason = pa.array(["" if value is None else value for value in told], pa.string())
    kept = table.filter(pc.equal(reason, KEPT))
    return {
        "funnel": _funnel(table, reason),
        "samples": _samples(table, reason) if reasons is not None else {},
        "histograms": _histograms(kept),
    }


def lost(source: str, reasons: Mapping[str, int]) -> dict[str, Any]:
    """Count records that never became documents.

    Args:
        source: Where they were to come from.
        reasons: How many, by reason.

    Returns:
        A tally of a funnel alone.
    """
    return {"funnel": [[source, "", reason, count, 0] for reason, count in sorted(reasons.items()) if count]}


def merge(tallies: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up tallies.

    Args:
        tallies: As `tally`, `lost` or this function gave them; other keys are left out.

    Returns:
        One tally.
    """
    rows: Counter[tuple[str, str, str]] = Counter()
    sizes: Counter[tuple[str, str, str]] = Counter()
    samples: dict[str, list[dict[str, Any]]] = {}
    histograms: dict[str, npt.NDArray[np.int64]] = {}
    for told in tallies:
        for source, language, reason, count, size in told.get("funnel", ()):
            rows[source, language, reason] += count
            sizes[source, language, reason] += size
        for reason, found in told.get("samples", {}).items():
            samples[reason] = _first([*samples.get(reason, []), *found])
        for name, counts in told.get("histograms", {}).items():
            histograms[name] = histograms.get(name, np.zeros(len(counts), np.int64)) + np.asarray(counts)
    return {
        "funnel": [[*key, count, sizes[key]] for key, count in sorted(rows.items()) if count],
        "samples": samples,
        "histograms": {name: counts.tolist() for name, counts in histograms.items()},
    }


def drops(funnel: Sequence[Row]) -> dict[str, int]:
    """Count dropped documents by reason, the largest count first.

    Args:
        funnel: Of a tally.

    Returns:
        Counts by reason.
    """
    return _sum(funnel, lambda row: row[2], 3, lambda row: row[2] != KEPT)


def kept(funnel: Sequence[Row], column: str) -> dict[str, int]:
    """Count documents that stayed, the largest count first.

    Args:
        funnel: Of a tally.
        column: `source` or `language`.

    Returns:
        Counts by name.
    """
    place = ("source", "language").index(column)
    return _sum(funnel, lambda row: row[place], 3, lambda row: row[2] == KEPT)


def kept_bytes(funnel: Sequence[Row]) -> int:
    """Add up the UTF-8 bytes of the texts that stayed."""
    return int(sum(row[4] for row in funnel if row[2] == KEPT))


def of_kept(rows: Iterable[Row]) -> dict[str, Any]:
    """Make a tally of counts of documents that stayed.

    Args:
        rows: source, language, documents, bytes.

    Returns:
        A tally of a funnel alone.
    """
    return {"funnel": [[source, language, KEPT, count, size] for source, language, count, size in rows]}


def kept_rows(funnel: Sequence[Row]) -> list[Row]:
    """Leave out what was dropped.

    Args:
        funnel: Of a tally.

    Returns:
        source, language, documents, bytes.
    """
    return [[row[0], row[1], row[3], row[4]] for row in funnel if row[2] == KEPT]


def _sum(funnel: Sequence[Row], name: Any, amount: int, where: Any) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for row in funnel:
        if where(row):
            counts[name(row)] += row[amount]
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _funnel(table: pa.Table, reason: pa.Array) -> list[Row]:
    grouped = pa.table(
        {
            "source": pc.fill_null(table["source"], ""),
            "language": pc.fill_null(table["language"], ""),
            "reason": reason,
            "bytes": pc.binary_length(table["text"]).cast(pa.int64()),
        }
    ).group_by(["source", "language", "reason"])
    counted = grouped.aggregate([("bytes", "count"), ("bytes", "sum")])
    names = ("source", "language", "reason", "bytes_count", "bytes_sum")
    return sorted([list(row.values()) for row in counted.select(names).to_pylist()])


def _samples(table: pa.Table, reason: pa.Array) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    codes = reason.dictionary_encode()
    for number, name in enumerate(codes.dictionary.to_pylist()):
        if name == KEPT:
            continue
        places = np.flatnonzero(codes.indices.to_numpy() == number)
        ids = table["id"].take(pa.array(places)).to_pylist()
        first = places[sorted(range(len(ids)), key=lambda place: ids[place])[:SAMPLES_PER_REASON]]
        found[name] = [_sample(row) for row in table.take(pa.array(np.sort(first))).to_pylist()]
    return {name: _first(rows) for name, rows in found.items()}


def _sample(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: row.get(name) for name in ("id", "source", "url", "language")},
        "characters": len(row["text"]),
        "text": row["text"][:_SNIPPET_CHARS],
    }


def _first(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose by id, which is a hash: the same whatever the order in which batches were counted."""
    return sorted(samples, key=lambda sample: str(sample["id"]))[:SAMPLES_PER_REASON]


def _histograms(table: pa.Table) -> dict[str, list[int]]:
    columns = {"characters": pc.utf8_length(table["text"])}
    columns |= {name: table[name] for name in BINS if name in table.column_names}
    counted = {}
    for name, values in columns.items():
        known = values.drop_null()
        if len(known):
            counted[name] = np.histogram(known.to_numpy(), [*BINS[name][:-1], np.inf])[0].tolist()
    return counted
