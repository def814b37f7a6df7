"""`qwen-core export`: a trained model as a clean Hugging Face folder."""

from __future__ import annotations

import click

from qwen_core.cli.options import home_option

_STAGES = ("dpo", "sft", "pretrain")


@click.command()
@click.argument("model", metavar="RUN_KEY|MODEL")
@click.option("--output", "-o", required=True, type=click.Path(), help="Folder to write; empty, or not there yet.")
@click.option("--stage", type=click.Choice(_STAGES), default=None, help="Of a run [default: the last that there is].")
@click.option("--dtype", type=click.Choice(("bf16", "fp16", "fp32")), default=None, help="[default: as trained]")
@click.option("--max-shard-size", default="5GB", show_default=True, help="Largest file of weights.")
@home_option
def export(
    model: str, output: str, stage: str | None, dtype: str | None, max_shard_size: str, home: str | None
) -> None:
    """Write a trained model as a Hugging Face folder, with tokenizer, chat template and a model card.

    MODEL is a run key, the URI of a manifest, a folder, or models:/NAME@ALIAS of MLflow's registry.

    \b
    Examples:
      qwen-core export demo-20260102-030405-9f3a -o my-model --dtype bf16
      qwen-core export models:/qwen-core-demo@champion -o champion
    """
    from qwen_core.artifacts import Store
    from qwen_core.jobs.exported import export_model
    from qwen_core.jobs.found import find_model
    from qwen_core.platform import Platform

    platform = Platform(home)
    stages = (stage,) if stage else _STAGES
    found = find_model(model, Store(platform.store_root), platform.tracking_uri, stages)
    files = export_model(found, output, dtype, max_shard_size)
    click.echo(f"{found.title}: {len(files)} files in {output}")
    for file in files:
        click.echo(f"  {file.stat().st_size:>14,}  {file.name}")
