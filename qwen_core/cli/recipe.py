"""`qwen-core recipe`: list, check and show recipes."""

from __future__ import annotations

import click

from qwen_core.cli.options import set_option
from qwen_core.config import bundled_recipes, dump_recipe, load_recipe
from qwen_core.config.explain import to_markdown


@click.command()
@click.argument("name", required=False)
@set_option
@click.option("--explain", is_flag=True, help="Print every key with its bounds, default and meaning, as Markdown.")
def recipe(name: str | None, overrides: tuple[str, ...], explain: bool) -> None:
    """Check a recipe and print it resolved; without NAME, list the bundled ones.

    \b
    Examples:
      qwen-core recipe                                     the bundled recipes
      qwen-core recipe demo > mine.yaml                    a start for your own
      qwen-core recipe mine.yaml --set pack.max_seq_len=1024
    """
    if explain:
        click.echo(to_markdown(), nl=False)
        return
    if name is None:
        for bundled in bundled_recipes():
            click.echo(f"{bundled:20} {load_recipe(bundled).description}")
        return
    click.echo(dump_recipe(load_recipe(name, overrides)), nl=False)
