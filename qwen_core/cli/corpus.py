"""The report of a corpus: what came, what each stage dropped and why, what is left; as plain data and as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qwen_core.artifacts import Manifest

STAGES = ("ingest", "filter", "dedup")
"""Stages that documents pass through, in order."""

_MOST_ROWS = 12


def report_of(manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    """Sum up the corpus stages of a run.

    Args:
        manifests: By stage; stages that have not run are left out.

    Returns:
        Plain JSON: `stages` (documents, bytes, drops of each), `by_language`, `by_source`, `faults`,
        `contamination` (which items of evaluation sets were found), `duplicates`.
    """
    done = {name: manifests[name] for name in STAGES if name in manifests}
    last = list(done.values())[-1]
    stages = {
        name: {
            "documents": manifest.rows,
            "text_bytes": manifest.details.get("text_bytes", 0),
            "dropped": sum(manifest.drops.values()),
            "drops": manifest.drops,
            "seconds": manifest.seconds,
        }
        for name, manifest in done.items()
    }
    report: dict[str, Any] = {"stages": stages}
    report |= {name: last.details.get(name, {}) for name in ("by_language", "by_source")}
    if "ingest" in done:
        report["faults"] = done["ingest"].details.get("faults", [])
    if "filter" in done:
        report["contamination"] = done["filter"].details.get("contamination", {})
    if "dedup" in done:
        names = ("clusters", "largest_cluster", "cluster_sizes", "examples")
        report["duplicates"] = {name: done["dedup"].details.get(name) for name in names}
    return report


def print_report(console: Console, report: Mapping[str, Any]) -> None:
    """Print a report.

    Args:
        console: Where.
        report: As `report_of` gave it.
    """
    console.print()
    console.print(_stages(report))
    for title, name in (("language", "by_language"), ("source", "by_source")):
        console.print()
        console.print(_names(report[name], title))
    duplicates = report.get("duplicates")
    if duplicates and duplicates["clusters"]:
        sizes = ", ".join(f"{n:,} of {low}+" for low, n in duplicates["cluster_sizes"].items() if n)
        console.print(
            f"\nDuplicates: {duplicates['clusters']:,} clusters, the largest of "
            f"{duplicates['largest_cluster']:,} documents ({sizes})",
            highlight=False,
        )
    for name, told in report.get("contamination", {}).items():
        documents, items = told["counts"].get("documents", 0), len(told["items"])
        console.print(f"Evaluation set {name}: {items:,} items found in {documents:,} documents", highlight=False)
    faults = Counter(fault["reason"] for fault in report.get("faults", []))
    if faults:
        told = ", ".join(f"{reason} {count:,}" for reason, count in faults.most_common())
        console.print(f"[yellow]Broken input:[/] {told}; report.json names file and place", highlight=False)


def _stages(report: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column, justify in (
        ("stage", "left"),
        ("kept", "right"),
        ("dropped", "right"),
        ("MB", "right"),
        ("s", "right"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    table.add_column("by reason")
    for name, told in report["stages"].items():
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in told["drops"].items())
        size = f"{told['text_bytes'] / 1e6:,.1f}"
        table.add_row(name, f"{told['documents']:,}", f"{told['dropped']:,}", size, f"{told['seconds']:.1f}", reasons)
    return table


def _names(counts: Mapping[str, int], title: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(title)
    table.add_column("documents", justify="right")
    for name, count in list(counts.items())[:_MOST_ROWS]:
        table.add_row(escape(name or "unknown"), f"{count:,}")
    rest = list(counts.items())[_MOST_ROWS:]
    if rest:
        table.add_row(f"{len(rest)} more", f"{sum(count for _, count in rest):,}")
    return table
