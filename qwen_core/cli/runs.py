"""`qwen-core runs`: the pipeline runs, newest first."""

from __future__ import annotations

import datetime
import json

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen_core.cli.places import mlflow_at, place_options, places_of

_STATES = ("running", "finished", "failed", "killed")
_COLOURS = {"running": "cyan", "finished": "green", "failed": "red", "killed": "red"}


@click.command()
@click.option("--recipe", default=None, metavar="NAME", help="Only runs of this recipe.")
@click.option("--state", type=click.Choice(_STATES), default=None, help="Only runs in this state.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="So many, newest first.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@place_options
def runs(
    recipe: str | None,
    state: str | None,
    limit: int,
    as_json: bool,
    home: str | None,
    store_root: str | None,
    tracking_uri: str | None,
) -> None:
    """List pipeline runs: recipe, state, what each has made, and the version that came of it.

    \b
    Examples:
      qwen-core runs --recipe demo --limit 5
      qwen-core runs --state failed --json
    """
    places = places_of(home, store_root, tracking_uri)
    with mlflow_at(places.tracking_uri):
        from qwen_core.tracking.listed import list_runs
        from qwen_core.tracking.runs import send_all

        send_all(f"{places.store.root}/spool", places.tracking_uri)  # what waits since MLflow was away
        found = list_runs(places.store, places.tracking_uri, recipe, state, limit)
    if as_json:
        click.echo(json.dumps([one.to_json() for one in found], ensure_ascii=False, indent=1))
        return
    if not found:
        click.echo("no such pipeline run; start one with: qwen-core run")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run key", "recipe", "started", "state", "tokens", "bits/byte", "model"):
        table.add_column(column, justify="right" if column in ("tokens", "bits/byte") else "left")
    for one in found:
        started = datetime.datetime.fromtimestamp(one.started_seconds).strftime("%Y-%m-%d %H:%M")
        bits = "" if one.bits_per_byte is None else f"{one.bits_per_byte:.3f}"
        model = " ".join([one.version, *one.aliases])
        progress = "" if len(one.stages) == one.stages_in_all else f" {len(one.stages)} of {one.stages_in_all}"
        shown = Text(f"{one.state}{progress}", style=_COLOURS.get(one.state, ""))
        table.add_row(one.run_key, one.recipe, started, shown, _short(one.tokens), bits, model)
    Console(width=1000).print(table)  # whole lines, as of `docker ps`: to be copied, and searched in a pipe


def _short(tokens: int | None) -> str:
    """Write a number of tokens as people do: 1.7M."""
    value = float(tokens or 0)
    for unit in ("", "k", "M", "B"):
        if value < 999.5:
            return f"{value:.3g}{unit}" if tokens else ""
        value /= 1000
    return f"{value:.3g}T"
