"""`qwen-core import`: a Hugging Face model into the store, for `instruct`, `sft` and what follows."""

from __future__ import annotations

import click

from qwen_core.cli.options import home_option, new_run_key, recipe_address, recipe_option, set_option
from qwen_core.config import load_recipe


@click.command("import")
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@recipe_option
@set_option
@click.option("--run-key", default=None, help="Pipeline run to begin or to continue [default: a new one].")
@home_option
def import_(folder: str, recipe_name: str, overrides: tuple[str, ...], run_key: str | None, home: str | None) -> None:
    """Bring a model of the Qwen families from FOLDER into the store.

    FOLDER holds config.json, safetensors and tokenizer.json. The run then has what `tokenizer` and `pretrain` make,
    and goes on from there. To train such a model further on a corpus, name its folder in the recipe instead:
    pretrain.init_from and tokenizer.import_path.

    \b
    Examples:
      qwen-core import models/Qwen3-0.6B --run-key mine
      qwen-core stage instruct sft --run-key mine --set instruct.inputs=[my.jsonl]
    """
    from qwen_core.artifacts import Store
    from qwen_core.jobs.imported import import_model
    from qwen_core.platform import Platform

    recipe = load_recipe(recipe_address(recipe_name), overrides)
    platform = Platform(home)
    platform.prepare_local()
    key = run_key or new_run_key(recipe_name)
    made = import_model(folder, recipe, key, Store(platform.store_root), platform.tracking_uri)
    model = made["pretrain"]
    click.echo(f"run key: {key}")
    click.echo(f"tokenizer  {made['tokenizer'].rows:,} ids  {made['tokenizer'].uri}")
    told = f"{model.details['model_type']}, {model.metrics['parameters']:,.0f} parameters"
    click.echo(f"pretrain   {told}  {model.uri}")
    click.echo(f"go on with: qwen-core stage instruct sft --run-key {key} --recipe {recipe_name}")
