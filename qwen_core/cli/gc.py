"""`qwen-core gc`: clear away old runs and artifacts; shows first, does it with --yes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from qwen_core.cli.places import Places, mlflow_at, place_options, places_of

if TYPE_CHECKING:
    from qwen_core.collect.plan import Plan, Policy

_MOST_ROWS = 20
_UNITS = ("B", "kB", "MB", "GB", "TB")


@click.command()
@click.option("--keep-last", type=click.IntRange(0), default=5, show_default=True, help="Newest runs of each recipe.")
@click.option("--keep-days", type=click.FloatRange(0), default=30.0, show_default=True, help="Runs younger than this.")
@click.option(
    "--min-age",
    type=click.FloatRange(0),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="Nothing younger goes: an attempt may be writing it.",
)
@click.option(
    "--stale-days",
    type=click.FloatRange(0),
    default=7.0,
    show_default=True,
    help="A run without a sign of life for so long is dead, whatever MLflow says.",
)
@click.option("--drop-versions", is_flag=True, help="Registered versions without an alias go with their runs.")
@click.option(
    "--generations",
    type=click.IntRange(0),
    default=None,
    help="Earlier runs whose artifacts stay, along what a run went on from [default: all].",
)
@click.option("--archive", metavar="URI", default=None, help="Move things to this store instead of deleting them.")
@click.option("--yes", "is_meant", is_flag=True, help="Do it; without this only what would go is shown.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.option("--database", metavar="URI", default=None, help="MLflow's database, to remove rows of deleted runs too.")
@place_options
def gc(
    keep_last: int,
    keep_days: float,
    min_age: float,
    stale_days: float,
    drop_versions: bool,
    generations: int | None,
    archive: str | None,
    is_meant: bool,
    as_json: bool,
    database: str | None,
    home: str | None,
    store_root: str | None,
    tracking_uri: str | None,
) -> None:
    """Clear away old pipeline runs, with the artifacts, parts and MLflow runs that nothing else needs.

    Kept are: the newest runs of each recipe, young runs, runs that go on, and all that a registered model was made
    from, back to its corpus. Shows what would go; --yes does it. May be killed, and may run beside stages.

    \b
    Examples:
      qwen-core gc                                     what would go
      qwen-core gc --keep-last 3 --keep-days 14 --yes
      qwen-core gc --drop-versions --generations 1 --archive s3://cold/qwen --yes
    """
    from qwen_core.collect.plan import Policy

    places = places_of(home, store_root, tracking_uri)
    policy = Policy(keep_last, keep_days, min_age, stale_days, drop_versions, generations)
    with mlflow_at(places.tracking_uri):
        plan = _plan(places, policy)
        if is_meant:
            told = _carry_out(places, plan, policy, archive, _database(database, home, tracking_uri))
    if as_json:
        done = {"done": told} if is_meant else {}
        click.echo(json.dumps(plan.to_json() | done, ensure_ascii=False, indent=1))
        return
    _print_plan(plan, Console())
    if is_meant:
        _print_done(told)
    elif plan.going:
        click.echo("\nnothing was touched; to do it: the same with --yes")


def _plan(places: Places, policy: Policy) -> Plan:
    from qwen_core.collect.inventory import take_inventory
    from qwen_core.collect.plan import Planner
    from qwen_core.tracking.known import what_is_known

    now = time.time()
    known = what_is_known(places.tracking_uri)  # before the store: what begins after it, the sweep looks for again
    return Planner(places.store, take_inventory(places.store), known, policy, now).plan()


def _carry_out(
    places: Places, plan: Plan, policy: Policy, archive: str | None, database: str | None
) -> dict[str, object]:
    from qwen_core.collect.archive import Archive
    from qwen_core.collect.sweep import Sweep
    from qwen_core.tracking.known import what_is_known
    from qwen_core.tracking.removal import drop_version, export_runs, remove_runs

    uri = places.tracking_uri
    store = Archive(places.store, archive) if archive else None
    run_ids = [one.uri for one in plan.of("mlflow_run")]
    if archive and run_ids:
        _export(archive, lambda folder: export_runs(uri, run_ids, folder))
    sweep = Sweep(places.store, plan, policy, lambda: what_is_known(uri), lambda title: drop_version(uri, title), store)
    done = sweep.run()
    still = {manifest.mlflow_run_id for manifest in (places.store.load(one) for one in done.spared)}
    done.notes += remove_runs(uri, [run_id for run_id in run_ids if run_id not in still], database)
    for one in plan.of("mlflow_run"):
        done.count(one)
    return done.to_json()


def _export(archive: str, export) -> None:  # type: ignore[no-untyped-def]
    """Export runs into a folder, and bring it to the archive."""
    import tempfile

    from qwen_core.artifacts import upload

    if "://" not in archive:
        export(Path(archive) / "mlflow")
        return
    with tempfile.TemporaryDirectory() as folder:
        export(Path(folder))
        upload(folder, f"{archive.rstrip('/')}/mlflow")


def _database(given: str | None, home: str | None, tracking_uri: str | None) -> str | None:
    """Name MLflow's database: as given, the tracking URI itself, or the platform's own."""
    if given or (tracking_uri and "://" in tracking_uri and not tracking_uri.startswith("http")):
        return given or tracking_uri
    if tracking_uri:
        return None
    from qwen_core.platform import Platform
    from qwen_core.platform.database import tracking_database

    platform = Platform(home)
    return tracking_database(platform.home, platform.settings)


def _print_plan(plan: Plan, console: Console) -> None:
    for note in plan.notes:
        console.print(f"note: {note}", style="yellow", soft_wrap=True)
    if not plan.going:
        console.print(f"nothing to clear away; {_size(plan.kept_bytes)} stay")
        return
    table = Table(box=None, pad_edge=False)
    for column, justify in (("what", "left"), ("size", "right"), ("why", "left"), ("where", "left")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    shown = sorted(plan.going, key=lambda one: -one.bytes)[:_MOST_ROWS]
    for one in shown:
        table.add_row(one.kind.replace("_", " "), _size(one.bytes), one.why, "/".join(one.uri.split("/")[-3:]))
    console.print(table)
    if len(plan.going) > len(shown):
        console.print(f"and {len(plan.going) - len(shown)} more: --json", style="dim")
    counts: dict[str, int] = {}
    for one in plan.going:
        counts[one.kind] = counts.get(one.kind, 0) + 1
    told = ", ".join(f"{count} {kind.replace('_', ' ')}{'s' * (count > 1)}" for kind, count in counts.items())
    console.print(f"\n{told}: {_size(plan.bytes)} of {_size(plan.bytes + plan.kept_bytes)}", soft_wrap=True)


def _print_done(told: dict[str, object]) -> None:
    counts, spared, notes = told["counts"], told["spared"], told["notes"]
    assert isinstance(counts, dict) and isinstance(spared, list) and isinstance(notes, list)
    size = told["bytes"]
    assert isinstance(size, int)
    click.echo(f"\ndone: {_size(size)} are free")
    if spared:
        click.echo(f"{len(spared)} artifacts stay, for a stage has taken them up meanwhile")
    for note in notes:
        click.echo(f"note: {note}")


def _size(count: int) -> str:
    value, unit = float(max(0, count)), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"
