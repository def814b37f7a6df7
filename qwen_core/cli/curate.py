"""`qwen-core curate`: raw text to a clean, deduplicated corpus, on a Ray of its own or a cluster; nothing else needed.

OUTPUT/documents/part-00000.parquet ...   the corpus
OUTPUT/report/<stage>/...                 tables and plots: funnel, dropped documents, histograms
OUTPUT/report.json                        the figures; written last
OUTPUT/.curate/                           parts and sketches, so that more input is added without starting anew
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from qwen_core.artifacts import Manifest, Store, upload
from qwen_core.cli.board import Board
from qwen_core.cli.corpus import print_report, report_of
from qwen_core.cli.options import recipe_address, set_option, with_inputs
from qwen_core.config import Recipe, load_recipe
from qwen_core.errors import ArtifactError, InputError
from qwen_core.filesystem import open_filesystem
from qwen_core.progress import listening

STAGES = ("ingest", "classifiers", "filter", "dedup")
RUN_KEY = "curate"


def store_of(output: str) -> Store:
    """Open the store that lies in an output folder.

    Args:
        output: As `curate` was given it.

    Returns:
        The store.
    """
    return Store(f"{output.rstrip('/')}/.curate/artifacts")


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--output", "-o", required=True, metavar="DIR", help="Folder, or s3:// address, of the corpus.")
@click.option(
    "--recipe",
    "recipe_name",
    default="curate",
    show_default=True,
    help="Bundled recipe or YAML file; of it the sections ingest, classifiers, filter, dedup are used.",
)
@set_option
@click.option("--append", is_flag=True, help="Add to what DIR holds; files that were read before are skipped.")
@click.option("--address", default=None, help="Ray cluster to run on [default: RAY_ADDRESS, else this machine alone].")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def curate(
    inputs: tuple[str, ...],
    output: str,
    recipe_name: str,
    overrides: tuple[str, ...],
    append: bool,
    address: str | None,
    as_json: bool,
) -> None:
    """Clean, filter and deduplicate text into Parquet.

    INPUT is a file, a folder, a glob or an s3:// address: WARC and WET, JSON lines, Parquet, CSV, text, Markdown,
    source code; .gz and .zst too.

    \b
    Examples:
      qwen-core curate crawl/*.warc.gz -o corpus
      qwen-core curate more/ -o corpus --append
      qwen-core curate a.parquet -o out --set ingest.text_column=content --set 'filter.languages=[zh, en]'
      qwen-core inspect corpus                                what was dropped, and why
    """
    place = output.rstrip("/") if "://" in output else str(Path(output).expanduser().absolute())
    store = store_of(place)
    recipe = load_recipe(recipe_address(recipe_name), with_inputs([*overrides, *_base(store, append)], inputs))
    if address:
        os.environ["RAY_ADDRESS"] = address
    console = Console(file=sys.stderr if as_json else sys.stdout)  # named, for what stages print is kept from both
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        manifests = _run(recipe, store, folder, console)
        _publish(store, manifests["dedup"], place)
        upload(folder, f"{place}/report")
    report = report_of(manifests) | {"seconds": round(time.monotonic() - started, 1), "output": place}
    _write(f"{place}/report.json", json.dumps(report, ensure_ascii=False, indent=1))
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        print_report(console, report)
        console.print(f"\nCorpus    {place}/documents", highlight=False, soft_wrap=True)
        console.print(f"Look into it with: qwen-core inspect {output}", highlight=False, soft_wrap=True)


def _base(store: Store, append: bool) -> list[str]:
    """Name what is added to, as an override of the recipe."""
    if not append:
        return []
    known = store.of_run(RUN_KEY)
    if "ingest" not in known:
        raise InputError(f"nothing to append to in {store.root}: leave --append out the first time")
    return [f"ingest.base={known['ingest'].uri}"]


def _run(recipe: Recipe, store: Store, folder: str, console: Console) -> dict[str, Manifest]:
    """Run the stages one after another, shown on a board."""
    from qwen_core.jobs.runner import run_stage
    from qwen_core.tracking.folder import SCHEME

    manifests = {}
    with _quiet(), Board(console, STAGES) as board, listening(board.progress):
        for name in STAGES:
            board.state(name, "running")
            try:
                manifests[name], is_reused = run_stage(name, recipe, RUN_KEY, store, f"{SCHEME}{folder}")
            except BaseException:
                board.state(name, "failed")
                raise
            board.state(name, "reused" if is_reused else "done")
    return manifests


@contextmanager
def _quiet() -> Iterator[None]:
    """Show the board alone, not the lines that jobs print for logs; end a Ray that was started here."""
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        import ray

        ray.shutdown()


def _publish(store: Store, manifest: Manifest, place: str) -> None:
    """Lay the corpus's files into `documents`: as links where the file system has them, else as copies."""
    from qwen_core.jobs.corpus import document_files

    filesystem, path = open_filesystem(f"{place}/documents")
    fresh = f"{path}.new"
    for folder in (fresh, f"{path}.old"):
        if filesystem.get_file_info(folder).type.name == "Directory":
            filesystem.delete_dir(folder)
    filesystem.create_dir(fresh, recursive=True)
    for number, uri in enumerate(document_files(manifest)):
        target = f"{fresh}/part-{number:05d}.parquet"
        if "://" in place:
            filesystem.copy_file(store.path_of(uri), target)
        else:
            _link(uri, target)
    if "://" in place:  # an object store has no folders to rename: the parts are copied to their place, the rest goes
        _replace_objects(filesystem, fresh, path)
        return
    if Path(path).exists():
        Path(path).rename(f"{path}.old")
    Path(fresh).rename(path)
    if Path(f"{path}.old").exists():
        filesystem.delete_dir(f"{path}.old")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        import shutil

        shutil.copyfile(source, target)


def _replace_objects(filesystem: Any, fresh: str, path: str) -> None:
    import pyarrow.fs as pafs

    new = [info.base_name for info in filesystem.get_file_info(pafs.FileSelector(fresh))]
    for name in new:
        filesystem.move(f"{fresh}/{name}", f"{path}/{name}")
    for info in filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True)):
        if info.base_name not in new:
            filesystem.delete_file(info.path)


def _write(uri: str, text: str) -> None:
    filesystem, path = open_filesystem(uri)
    with filesystem.open_output_stream(path) as file:
        file.write(text.encode())


def manifests_of(place: str) -> dict[str, Manifest]:
    """Read the manifests of an output folder.

    Args:
        place: As `curate` was given it.

    Returns:
        By stage.

    Raises:
        ArtifactError: There is no finished corpus.
    """
    manifests = store_of(place).of_run(RUN_KEY)
    if "dedup" not in manifests:
        raise ArtifactError(
            f"{place} holds no finished corpus: make one with qwen-core curate INPUT... --output {place}"
        )
    return manifests
