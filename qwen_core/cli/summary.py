"""`qwen-core summary`: what a pipeline run made, in one screen, from its manifests."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen_core.artifacts import Manifest, Store
from qwen_core.cli.corpus import STAGES
from qwen_core.cli.options import home_option
from qwen_core.errors import ArtifactError
from qwen_core.platform import Platform


@click.command()
@click.argument("run_key")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable: the manifests of all stages.")
@home_option
def summary(run_key: str, as_json: bool, home: str | None) -> None:
    """Print what a pipeline run made: documents, tokens, losses, samples, links."""
    platform = Platform(home)
    if as_json:
        manifests = Store(platform.store_root).of_run(run_key)
        click.echo(json.dumps({name: m.model_dump() for name, m in manifests.items()}, ensure_ascii=False, indent=1))
        return
    print_summary(platform, run_key)


def print_summary(platform: Platform, run_key: str, console: Console | None = None) -> None:
    """Print the summary of a pipeline run; stages that have not run are left out.

    Args:
        platform: Whose store holds the run.
        run_key: The pipeline run.
        console: Where to print, instead of standard output.

    Raises:
        ArtifactError: The store knows no such run.
    """
    manifests = Store(platform.store_root).of_run(run_key)
    if not manifests:
        raise ArtifactError(f"no stage has finished under run key '{run_key}' in {platform.store_root}")
    console = console or Console()
    console.print()
    for section in (_documents, _tokens, _training, _alignment, _samples):
        rendered = section(manifests)
        if rendered is not None:
            console.print(rendered)
    _links(console, platform, manifests)


def _documents(manifests: dict[str, Manifest]) -> Table | None:
    """Documents in, kept, dropped by reason."""
    if "ingest" not in manifests:
        return None
    table = Table(title="Documents", title_justify="left", box=None, pad_edge=False)
    for column, justify in (("stage", "left"), ("kept", "right"), ("dropped", "right"), ("by reason", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for name in STAGES:
        manifest = manifests.get(name)
        if manifest is not None:
            by_reason = sorted(manifest.drops.items(), key=lambda item: -item[1])
            told = ", ".join(f"{reason} {count:,}" for reason, count in by_reason)
            table.add_row(name, f"{manifest.rows:,}", f"{sum(manifest.drops.values()):,}", told)
    return table


def _tokens(manifests: dict[str, Manifest]) -> Text | None:
    """Tokens and how densely they hold the text."""
    if "pack" not in manifests:
        return None
    pack = manifests["pack"]
    density = pack.metrics.get("bytes_per_token")
    told = f", {density:.2f} bytes per token" if density else ""
    return Text(f"\nTokens    {pack.tokens:,} in {pack.rows:,} sequences{told}")


def _training(manifests: dict[str, Manifest]) -> Table | None:
    """First and last value of each loss curve."""
    trained = [manifests[name] for name in ("pretrain", "sft", "dpo") if name in manifests]
    if not trained:
        return None
    table = Table(title="\nTraining", title_justify="left", box=None, pad_edge=False)
    for column in ("stage", "steps", "train loss", "validation loss", "bits per byte", "tokens/s", "minutes"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for manifest in trained:
        figures = manifest.metrics
        table.add_row(
            manifest.stage,
            f"{figures.get('steps', 0):,.0f}",
            _first_to_last(figures, "train_loss"),
            _first_to_last(figures, "validation_loss"),
            _first_to_last(figures, "validation_bits_per_byte"),
            f"{figures.get('tokens_per_second', 0):,.0f}",
            f"{manifest.seconds / 60:.1f}",
        )
    return table


def _first_to_last(figures: dict[str, float], name: str) -> str:
    if f"first_{name}" not in figures:
        return ""
    return f"{figures[f'first_{name}']:.3f} → {figures[f'last_{name}']:.3f}"


def _alignment(manifests: dict[str, Manifest]) -> Text | None:
    """What alignment brought, on held-out data."""
    if "evaluate" not in manifests:
        return None
    figures = manifests["evaluate"].metrics
    lines = [
        ("preference accuracy", "preference_accuracy", "{:.0%}", ("sft", "dpo")),
        ("answer loss", "answer_loss", "{:.3f}", ("pretrain", "sft", "dpo")),
        ("bits per byte", "bits_per_byte", "{:.3f}", ("pretrain", "sft", "dpo")),
    ]
    text = Text("\nHeld out\n")
    for title, name, form, models in lines:
        values = [
            f"{model} {form.format(figures[f'{model}.{name}'])}" for model in models if f"{model}.{name}" in figures
        ]
        text.append(f"{title:20} {', '.join(values)}\n")
    return text


def _samples(manifests: dict[str, Manifest]) -> Text | None:
    """What the aligned model answers."""
    if "evaluate" not in manifests:
        return None
    text = Text("Samples\n")
    for sample in manifests["evaluate"].details.get("samples", []):
        text.append(f"[{sample['name']}] {sample['prompt']}\n", style="bold")
        text.append(f"{sample['reply'].strip()}\n\n")
    return text


def _links(console: Console, platform: Platform, manifests: dict[str, Manifest]) -> None:
    """Where to look further."""
    rows: list[tuple[str, Any]] = [("Airflow", platform.airflow_url), ("MLflow", platform.mlflow_url)]
    final = next((manifests[name] for name in ("dpo", "sft", "pretrain") if name in manifests), None)
    if "release" in manifests:
        told = manifests["release"].details
        rows[1] = ("MLflow", f"{platform.mlflow_url}/#{told.get('comparison_path', '')}")
        aliases = " and ".join(_aliases(platform, told))
        rows.append(
            ("Registry", f"{platform.mlflow_url}/#/models/{told['name']}  version {told['version']} ({aliases})")
        )
    if final is not None:
        rows.append(("Model", final.path("model")))
    for title, place in rows:
        console.print(f"{title:9} {place}", highlight=False, soft_wrap=True)
    if not platform.is_up():
        console.print("Airflow and MLflow answer after: qwen-core up", highlight=False)


def _aliases(platform: Platform, told: dict[str, Any]) -> list[str]:
    """Name a version's aliases as they were when it was released; where a person was asked, as they are now."""
    if told.get("decision") != "awaiting_approval":
        return list(told.get("aliases", []))
    from qwen_core.tracking.registry import CHAMPION, find_champion  # loads MLflow

    champion = find_champion(platform.tracking_uri, told["name"])
    is_champion = champion is not None and champion.version == told["version"]
    return [*told["aliases"], *([CHAMPION] if is_champion else [])]
