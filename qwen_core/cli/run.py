"""`qwen-core run`: start the platform, trigger the DAGs, follow them, summarise."""

from __future__ import annotations

import sys
from typing import Any

import click

from qwen_core.artifacts import Store
from qwen_core.cli.board import Board
from qwen_core.cli.follow import Follower, StageFailedError
from qwen_core.cli.options import home_option, new_run_key, recipe_address, recipe_option, set_option, with_inputs
from qwen_core.cli.summary import print_summary
from qwen_core.config import bundled_recipes, load_recipe
from qwen_core.platform import Platform
from qwen_core.stages import DAGS


@click.command()
@recipe_option
@click.option("--input", "inputs", multiple=True, metavar="PATH...", help="Files, folders or globs; repeatable.")
@click.argument("more_inputs", nargs=-1, metavar="")
@set_option
@click.option("--run-key", default=None, help="Continue this pipeline run [default: a new one].")
@click.option("--approval", is_flag=True, help="A person decides in Airflow whether the model becomes champion.")
@click.option("--no-wait", is_flag=True, help="Trigger only; do not follow.")
@home_option
def run(
    recipe_name: str,
    inputs: tuple[str, ...],
    more_inputs: tuple[str, ...],
    overrides: tuple[str, ...],
    run_key: str | None,
    approval: bool,
    no_wait: bool,
    home: str | None,
) -> None:
    """Run the whole path, from raw text to an aligned model, through Airflow.

    Starts the platform when it is down, triggers the DAGs and shows each stage's progress. Stages whose
    result exists are not run again. Ctrl-C leaves the DAGs running.

    \b
    Examples:
      qwen-core run
      qwen-core run --input texts/ more.jsonl.gz
      qwen-core run --recipe mine.yaml --set pretrain.max_steps=500
    """
    settled = with_inputs(overrides, [*inputs, *more_inputs])
    loaded = load_recipe(recipe_address(recipe_name), settled)  # faults show before anything is started
    platform = Platform(home)
    platform.up(progress=lambda text: click.echo(text, err=True))
    key = run_key or new_run_key(recipe_name)
    conf = form_values(recipe_address(recipe_name), settled, key, approval)
    follower = Follower(platform, key)
    dag_run_id = follower.trigger(conf)
    click.echo(f"run key {key}, recipe {loaded.name}")
    click.echo(f"Airflow  {platform.dag_run_url(DAGS[0], dag_run_id)}")
    if no_wait:
        click.echo(f"follow with: qwen-core run --run-key {key}, or in Airflow")
        return
    try:
        with Board() as board:
            follower.follow(board)
    except KeyboardInterrupt:
        click.echo(
            f"\nNo longer following; the DAGs go on.\n"
            f"  watch    {platform.dag_run_url(DAGS[0], dag_run_id)}\n"
            f"  result   qwen-core summary {key}\n"
            f"  stop     mark the DAG run as failed in Airflow, or: qwen-core down"
        )
        sys.exit(130)
    except StageFailedError as failure:
        if Store(platform.store_root).of_run(key):
            print_summary(platform, key)
        click.secho(f"\nstage '{failure.stage}' failed", fg="red", bold=True)
        click.echo(str(failure))
        sys.exit(failure.exit_code)
    print_summary(platform, key)
    click.echo(f"run key {key} finished; talk to the model with: qwen-core chat")


def form_values(recipe: str, overrides: list[str], run_key: str, approval: bool = False) -> dict[str, Any]:
    """Fill in the trigger form of DAG `corpus`.

    Args:
        recipe: Bundled name, or path.
        overrides: Of the recipe.
        run_key: The pipeline run.
        approval: Whether a person is asked before the model becomes champion.

    Returns:
        Its fields by name.
    """
    field = "recipe" if recipe in bundled_recipes() else "recipe_path"
    return {field: recipe, "overrides": overrides, "run_key": run_key, "approval": approval}
