"""`qwen-core compare`: two pipeline runs side by side, the answer that MLflow's page shows too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen_core.cli.places import mlflow_at, place_options, places_of

if TYPE_CHECKING:
    from qwen_core.tracking.comparison import Comparison, Row

_MOST_ROWS = 15
_COLOURS = {"a": "red", "b": "green", "": ""}


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--all", "is_whole", is_flag=True, help="Every figure, also those that are the same.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@place_options
def compare(
    first: str,
    second: str,
    is_whole: bool,
    as_json: bool,
    home: str | None,
    store_root: str | None,
    tracking_uri: str | None,
) -> None:
    """Show what differs between two runs: in data, in recipe, in result.

    A and B are run keys, ids of MLflow runs, or models: NAME@champion, NAME/3, NAME (its newest version).

    \b
    Examples:
      qwen-core compare demo@champion demo@challenger
      qwen-core compare demo-20260102-030405-9f3a demo-20260103-030412-77c1 --json
    """
    places = places_of(home, store_root, tracking_uri)
    with mlflow_at(places.tracking_uri):
        from qwen_core.tracking.compare import compare as lay_side_by_side
        from qwen_core.tracking.named import Names

        names = Names(places.store, places.tracking_uri)
        found = lay_side_by_side(names.side(first), names.side(second), places.store)
    if as_json:
        click.echo(json.dumps(found.to_json(), ensure_ascii=False, indent=1))
        return
    print_comparison(found, Console(), is_whole)


def print_comparison(found: Comparison, console: Console, is_whole: bool = False) -> None:
    """Print a comparison.

    Args:
        found: The comparison.
        console: Where.
        is_whole: Also figures that are the same, and all of them.
    """
    from qwen_core.tracking.compare_text import headlines

    console.print(Text(f"A  {found.a}\nB  {found.b}"))
    for note in found.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    _print_recipe(console, found, is_whole)
    files = found.files
    only = f"{files['only_a_count']:,} only in A, {files['only_b_count']:,} only in B"
    console.print(Text(f"\nSource files  {files['a']:,} in A, {files['b']:,} in B; {only}"))
    kept = [row for row in found.data if is_whole or not row.is_same]
    _print_rows(console, "\nData", kept, None if is_whole else _MOST_ROWS)
    result = found.result if is_whole else [*headlines(found), *_training(found)]
    _print_rows(console, "\nResult", result, None)
    if found.shared:
        console.print(Text(f"\nThe same artifacts in both: {', '.join(found.shared)}"))


def _training(found: Comparison) -> list[Row]:
    """Ends of the curves as a whole and by language; sources are many."""
    rows = [row for row in found.result if row.part == "training" and "/source/" not in row.name]
    return [row for row in rows if not row.is_same]


def _print_recipe(console: Console, found: Comparison, is_whole: bool) -> None:
    if not found.recipe:
        console.print(Text("\nRecipe  no key differs"))
        return
    table = _table("\nRecipe", "key", "A", "B")
    shown = found.recipe if is_whole else found.recipe[: 2 * _MOST_ROWS]
    for one in shown:
        table.add_row(
            Text(one.key), Text(one.a if one.a is not None else "–"), Text(one.b if one.b is not None else "–")
        )
    console.print(table)
    _print_more(console, len(found.recipe) - len(shown))


def _print_rows(console: Console, title: str, rows: Sequence[Row], most: int | None) -> None:
    from qwen_core.tracking.compare_text import change, label, number, verdict

    if not rows:
        console.print(Text(f"{title}  nothing differs"))
        return
    table = _table(title, "", "A", "B", "change")
    for row in rows[:most]:
        told = f"{change(row)} {verdict(row)}".rstrip()
        table.add_row(Text(label(row)), number(row.a), number(row.b), Text(told, style=_COLOURS[row.better]))
    console.print(table)
    _print_more(console, len(rows) - len(rows[:most]))


def _print_more(console: Console, count: int) -> None:
    if count > 0:
        console.print(f"and {count} more: --all", style="dim")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in ("A", "B") else "left", overflow="fold")
    return table
