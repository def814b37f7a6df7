"""`qwen-core inspect`: the funnel of a corpus, samples of what was dropped, and the way of one document."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pyarrow.compute as pc
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qwen_core.artifacts import Manifest, Store
from qwen_core.cli.corpus import STAGES, print_report, report_of
from qwen_core.cli.curate import manifests_of
from qwen_core.cli.options import home_option
from qwen_core.errors import ArtifactError, InputError
from qwen_core.parts import Part, parts_of, read_rows
from qwen_core.platform import Platform

_SHOWN_CHARS = 2000


@click.command()
@click.argument("place", metavar="DIR|RUN_KEY")
@click.option("--reason", default=None, help="Show samples of documents that were dropped for this reason.")
@click.option("--by", type=click.Choice(["source", "language"]), default=None, help="The funnel of each.")
@click.option("--document", default=None, metavar="ID", help="Follow one document from its file to its end.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@home_option
def inspect(
    place: str, reason: str | None, by: str | None, document: str | None, as_json: bool, home: str | None
) -> None:
    """Look into a corpus: what came, what was dropped and why.

    \b
    Examples:
      qwen-core inspect corpus                              the funnel
      qwen-core inspect corpus --by language                where each language's documents went
      qwen-core inspect corpus --reason near_duplicate      some documents that were dropped for it
      qwen-core inspect corpus --document 0f3a9c1d22ab4e17  the way of one document
    """
    manifests = _manifests(place, home)
    console = Console()
    if document:
        answer: Any = lineage(manifests, document)
    elif reason:
        answer = _samples(manifests, reason)
    elif by:
        answer = _funnels(manifests, by)
    else:
        answer = report_of(manifests)
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False, indent=1))
    elif document:
        _print_lineage(console, answer)
    elif reason:
        _print_samples(console, reason, answer)
    elif by:
        _print_funnels(console, by, answer)
    else:
        print_report(console, answer)


def lineage(manifests: Mapping[str, Manifest], document: str) -> list[dict[str, Any]]:
    """Follow a document through the stages.

    Args:
        manifests: Of one run.
        document: Its id.

    Returns:
        What each stage did with it, in order: `stage`, `fate` (`kept` or the reason), and what is known there.

    Raises:
        InputError: No document of the corpus has this id.
    """
    first, rest = STAGES[0], [name for name in STAGES[1:] if name in manifests]
    for number, part in enumerate(parts_of(manifests[first])):
        row = _row(part.uri, document)
        if row is None:
            continue
        way = [{"stage": first, "fate": "kept", **_told(row)}]
        for name in rest:
            way.append({"stage": name, **_fate(parts_of(manifests[name])[number], document)})
            if way[-1]["fate"] != "kept":
                break
        return way
    raise InputError(
        f"no document '{document}' in this corpus. Ids stand in the column 'id' of documents/*.parquet and in the "
        f"samples that --reason shows; what never became a document is listed under 'faults' of --json"
    )


def _manifests(place: str, home: str | None) -> dict[str, Manifest]:
    if "://" in place or Path(place).expanduser().is_dir():
        return manifests_of(place if "://" in place else str(Path(place).expanduser().absolute()))
    manifests = Store(Platform(home).store_root).of_run(place)
    if "ingest" not in manifests:
        raise ArtifactError(f"'{place}' is neither a folder that qwen-core curate made nor a run key with a corpus")
    return manifests


def _row(uri: str, document: str) -> dict[str, Any] | None:
    """Find a document in a file, reading ids first and the row alone then."""
    ids = read_rows(uri, ["id"])["id"]
    place = pc.index(ids, document).as_py()
    return read_rows(uri).slice(place, 1).to_pylist()[0] if place >= 0 else None


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    metadata = json.loads(row["metadata"] or "{}")
    place = {name.removeprefix("source_"): metadata.pop(name, "") for name in ("source_file", "source_position")}
    names = ("source", "url", "timestamp", "language", "language_score", "script")
    told = {name: row[name] for name in names if row.get(name) is not None}
    return {**place, **told, "metadata": metadata, "characters": len(row["text"]), "text": row["text"][:_SHOWN_CHARS]}


def _fate(part: Part, document: str) -> dict[str, Any]:
    """Tell what a stage did with a document of one of its parts."""
    row = _row(part.uri, document)
    if row is not None:
        scores = {n: round(v, 3) for n, v in row.items() if n.endswith("_score") and v is not None}
        return {"fate": "kept", **scores, "characters": len(row["text"])}
    dropped = _row(part.dropped, document) if part.dropped else None
    if dropped is None:
        return {"fate": "unknown"}
    told = {name: value for name, value in dropped.items() if name not in ("id", "reason", "source", "language")}
    return {"fate": dropped["reason"], **{name: value for name, value in told.items() if value not in (None, "")}}


def _samples(manifests: Mapping[str, Manifest], reason: str) -> list[dict[str, Any]]:
    known: set[str] = set()
    for name in STAGES:
        if name not in manifests:
            continue
        details = manifests[name].details
        known |= set(manifests[name].drops)
        if reason in details.get("samples", {}):
            return list(details["samples"][reason])
    hint = f"reasons of this corpus: {', '.join(sorted(known))}" if known else "nothing was dropped"
    raise InputError(f"no sample for the reason '{reason}'; {hint}")


def _funnels(manifests: Mapping[str, Manifest], by: str) -> dict[str, dict[str, Any]]:
    """Count for each source or language what came, what each stage dropped, what is left."""
    place = ("source", "language").index(by)
    counts: dict[str, dict[str, Any]] = {}
    for name, reason, kept in _rows(manifests, place):
        one = counts.setdefault(name, {"came": 0, "kept": 0, "drops": {}})
        one["came"] += kept.get("came", 0)
        one["kept"] += kept.get("kept", 0)
        if reason:
            one["drops"][reason] = one["drops"].get(reason, 0) + kept["dropped"]
    return dict(sorted(counts.items(), key=lambda item: -item[1]["came"]))


def _rows(manifests: Mapping[str, Manifest], place: int) -> Iterator[tuple[str, str, dict[str, int]]]:
    done = [name for name in STAGES if name in manifests]
    for name in done:
        for row in manifests[name].details.get("funnel", []):
            count = row[3]
            told = {"dropped": count} if row[2] else {}
            if name == done[0]:
                told["came"] = count
            if name == done[-1] and not row[2]:
                told["kept"] = count
            if told:
                yield row[place] or "unknown", row[2], told


def _print_lineage(console: Console, way: list[dict[str, Any]]) -> None:
    for step in way:
        fate = "[green]kept[/]" if step["fate"] == "kept" else f"[red]{step['fate']}[/]"
        console.print(f"[bold]{step['stage']}[/]  {fate}", highlight=False)
        for name, value in step.items():
            if name not in ("stage", "fate", "text"):
                console.print(f"  {name:16} {value}", highlight=False, markup=False)
    console.print(f"\n{way[0]['text']}", highlight=False, markup=False)


def _print_samples(console: Console, reason: str, samples: list[dict[str, Any]]) -> None:
    console.print(f"[bold]{reason}[/]: {len(samples)} of the documents that were dropped for it", highlight=False)
    for one in samples:
        told = escape(f"{one['source']}  {one['language']}  {one['url'] or ''}")
        console.print(f"\n[cyan]{one['id']}[/]  {told}", highlight=False)
        console.print(one["text"], highlight=False, markup=False)


def _print_funnels(console: Console, by: str, funnels: Mapping[str, Mapping[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column(by)
    for column in ("came", "kept"):
        table.add_column(column, justify="right")
    table.add_column("dropped, by reason")
    for name, one in funnels.items():
        reasons = ", ".join(f"{r} {n:,}" for r, n in sorted(one["drops"].items(), key=lambda item: -item[1]))
        table.add_row(escape(name), f"{one['came']:,}", f"{one['kept']:,}", reasons)
    console.print(table)
