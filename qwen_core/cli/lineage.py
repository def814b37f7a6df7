"""`qwen-core lineage`: what a model was made from, and what was made from a file or a corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from qwen_core.cli.places import Places, mlflow_at, place_options, places_of
from qwen_core.tracking.lineage import ORIGINS

if TYPE_CHECKING:
    from qwen_core.tracking.lineage import Artifact

_MOST_FILES = 5
_TRAINING = ("pretrain", "sft", "dpo", "reward", "ppo")
_LAST_FIRST = ("release", "ppo", "dpo", "reward", "sft", "pretrain")


@click.command()
@click.argument("named", metavar="MODEL")
@click.option("--forward", is_flag=True, help="From a source file, an artifact or a run's corpus to the models.")
@click.option("--files", "shows_files", is_flag=True, help="Every source file, not the first few.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@place_options
def lineage(
    named: str,
    forward: bool,
    shows_files: bool,
    as_json: bool,
    home: str | None,
    store_root: str | None,
    tracking_uri: str | None,
) -> None:
    """Show what a model was made from, back to each source file; with --forward, what holds a file.

    MODEL is NAME@champion, NAME/3, a run key, the id of an MLflow run or the URI of a manifest. With --forward it is
    a source file, a content hash, a fingerprint, the URI of a manifest, or a run key, whose corpus is meant.

    \b
    Examples:
      qwen-core lineage demo@champion
      qwen-core lineage demo/3 --json
      qwen-core lineage texts/2026-01-02.jsonl.gz --forward    which models have seen this file
    """
    places = places_of(home, store_root, tracking_uri)
    starts, found = _forward(named, places) if forward else _back(named, places)
    if as_json:
        click.echo(json.dumps(_told(starts, found), ensure_ascii=False, indent=1))
        return
    console = Console()
    children = _readers(found) if forward else {uri: dict(one.inputs) for uri, one in found.items()}
    shown: set[str] = set()
    most = None if shows_files else _MOST_FILES
    for uri in starts:
        console.print(_tree(uri, "", found, children, shown, most))
    if forward:
        versions = _told(starts, found)["versions"]
        console.print(Text(f"\nRegistered versions that hold it: {', '.join(map(str, versions)) or 'none'}"))


def _back(named: str, places: Places) -> tuple[list[str], dict[str, Artifact]]:
    from qwen_core.tracking.lineage import back

    if named.endswith("manifest.json"):
        places.store.load(named)  # a clear error where there is none
        return [named], back([named], places.store)
    with mlflow_at(places.tracking_uri):
        from qwen_core.tracking.named import Names

        side = Names(places.store, places.tracking_uri).side(named)
    stage = next((name for name in _LAST_FIRST if name in side.manifests), [*side.manifests][-1])
    starts = [side.manifests[stage].uri]
    return starts, back(starts, places.store)


def _forward(named: str, places: Places) -> tuple[list[str], dict[str, Artifact]]:
    from qwen_core.tracking.lineage import Index, starts_of

    index = Index(places.store)
    starts = starts_of(named, index, places.store)
    return starts, index.forward(starts)


def _told(starts: list[str], found: Mapping[str, Artifact]) -> dict[str, list[object]]:
    from qwen_core.tracking.lineage import versions_of

    versions = sorted(set(versions_of(found.values())))
    return {"starts": [*starts], "versions": [*versions], "artifacts": [one.to_json() for one in found.values()]}


def _readers(found: Mapping[str, Artifact]) -> dict[str, dict[str, str]]:
    """Turn inputs round: what was made from each artifact."""
    children: dict[str, dict[str, str]] = {uri: {} for uri in found}
    for uri, artifact in found.items():
        for source in artifact.inputs.values():
            children[source][uri] = uri
    return children


def _tree(
    uri: str,
    role: str,
    found: Mapping[str, Artifact],
    children: Mapping[str, Mapping[str, str]],
    shown: set[str],
    most_files: int | None,
) -> Tree:
    artifact = found[uri]
    tree = Tree(_line(artifact, role, uri in shown))
    if uri in shown:
        return tree
    shown.add(uri)
    for name, child in children[uri].items():
        told = name if name in ORIGINS else ""
        tree.add(_tree(child, told, found, children, shown, most_files))
    files = list(artifact.files.items())
    for digest, path in files[:most_files]:
        tree.add(Text(f"{path}  {digest[:12] if digest != path else ''}", style="dim"))
    if len(files) > len(files[:most_files]):
        tree.add(Text(f"and {len(files) - len(files[:most_files])} more files: --files", style="dim"))
    return tree


def _line(artifact: Artifact, role: str, is_again: bool) -> Text:
    text = Text(artifact.title, style="bold")
    if role:
        text.append(f"  ({role})", style="magenta")
    manifest = artifact.manifest
    if artifact.is_gone:
        text.append("  deleted", style="red")
    if manifest is None:
        return text
    if is_again:
        return text.append("  see above", style="dim")
    version = manifest.details.get("version") if manifest.stage == "release" else None
    told = (
        f"  {manifest.details['name']}/{version}"
        if version
        else f"  {manifest.rows:,} {'steps' if manifest.stage in _TRAINING else 'rows'}"
    )
    tokens = f", {manifest.tokens:,} tokens" if manifest.tokens else ""
    return text.append(f"{told}{tokens}, run {manifest.run_key}", style="")
