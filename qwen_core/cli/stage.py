"""`qwen-core stage`: run stages on a local Ray, without Airflow."""

from __future__ import annotations

import click

from qwen_core.cli.options import home_option, new_run_key, recipe_address, recipe_option, set_option, with_inputs
from qwen_core.config import load_recipe
from qwen_core.stages import STAGES


def _list_stages(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    """Print the stages and end."""
    if value:
        for word in STAGES.values():
            click.echo(f"{word.name:12} {word.dag:9} {word.summary}")
        ctx.exit()


@click.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice([*STAGES, "all"]), metavar="NAME...")
@recipe_option
@click.option("--input", "inputs", multiple=True, metavar="PATH", help="Instead of the recipe's inputs. Repeatable.")
@set_option
@click.option("--run-key", default=None, help="Pipeline run to continue [default: a new one].")
@home_option
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_stages, help="List the stages.")
def stage(
    names: tuple[str, ...],
    recipe_name: str,
    inputs: tuple[str, ...],
    overrides: tuple[str, ...],
    run_key: str | None,
    home: str | None,
) -> None:
    """Run stages one after another on a local Ray, without Airflow.

    Stages whose result exists are not run again. `all` runs the whole path.

    \b
    Examples:
      qwen-core stage ingest --input corpus.jsonl.gz --run-key try
      qwen-core stage classifiers filter dedup --run-key try --set dedup.num_buckets=20
      qwen-core stage all --set pretrain.max_steps=20
    """
    from qwen_core.artifacts import Store
    from qwen_core.jobs.runner import run_stage
    from qwen_core.platform import Platform

    loaded = load_recipe(recipe_address(recipe_name), with_inputs(overrides, inputs))
    platform = Platform(home)
    platform.prepare_local()
    key = run_key or new_run_key(recipe_name)
    click.echo(f"run key: {key}")
    for name in STAGES if "all" in names else names:
        run_stage(name, loaded, key, Store(platform.store_root), platform.tracking_uri)
