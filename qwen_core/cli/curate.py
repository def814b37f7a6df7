"""`qwen-core curate`: raw text to a clean, deduplicated corpus, on a Ray of its own or a cluster; nothing else needed.

OUTPUT/documents/part-00000.parquet ...   the corpus
OUTPUT/report/<stage>/...                 tables and plots: funnel, dropped documents, histograms
OUTPUT/report.json                        the figures; written last
OUTPUT/.curate/                           parts and sketches, so that more input is added without starting anew
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pyarrow.fs as pafs
from rich.console import Console

from qwen_core.artifacts import Manifest, Store, upload
from qwen_core.cli.board import Board
from qwen_core.cli.corpus import print_report, report_of
from qwen_core.cli.interrupt import insistent_interrupt
from qwen_core.cli.options import recipe_address, set_option, with_inputs
from qwen_core.cli.output import held, refuse_own_input
from qwen_core.config import Recipe, load_recipe
from qwen_core.errors import ArtifactError, InputError, PlatformError
from qwen_core.filesystem import check_bytes_come_back, open_filesystem, reason_of
from qwen_core.progress import listening

STAGES = ("ingest", "classifiers", "filter", "dedup")
RUN_KEY = "curate"
_INTERRUPTED = 130  # what a shell tells of a command that Ctrl-C ended
_ANSWER_SECONDS = 5.0
_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


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
      qwen-core curate a.parquet -o out --set ingest.columns.text=content --set 'filter.languages=[zh, en]'
      qwen-core inspect corpus                                what was dropped, and why
    """
    place = output.rstrip("/") if "://" in output else str(Path(output).expanduser().absolute())
    console = Console(file=sys.stderr if as_json else sys.stdout)  # named, for what stages print is kept from both
    refuse_own_input(place, inputs)
    _check_lists(load_recipe(recipe_address(recipe_name), with_inputs(overrides, inputs)))
    _choose_ray(address)
    try:
        with held(place):
            base = _base(store_of(place), append)
            recipe = load_recipe(recipe_address(recipe_name), with_inputs([*overrides, *base], inputs))
            report = _make(recipe, place, console)
    except KeyboardInterrupt:
        console.print("\nStopped. The same command goes on from here.", highlight=False)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(_INTERRUPTED)  # at once: a Ray that was interrupted as it started crashes at the interpreter's end
    except OSError as fault:
        if fault.errno not in _NO_PLACE and "://" not in place:
            raise
        raise ArtifactError(
            f"{place} cannot be written to ({reason_of(fault)}). When that is mended, or there is room again, run the "
            f"same command: what is finished is kept"
        ) from fault
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        print_report(console, report)
        console.print(f"\nCorpus    {place}/documents", highlight=False, soft_wrap=True)
        console.print(f"Look into it with: qwen-core inspect {output}", highlight=False, soft_wrap=True)


def _check_lists(recipe: Recipe) -> None:
    """Read what later stages need from outside, so that its faults are told before hours of work, not after."""
    from qwen_core.data.keywords import read_keywords
    from qwen_core.jobs.sources import keyword_paths, source_hashes

    for name in ("classifiers", "filter"):
        source_hashes(name, recipe)
    read_keywords(list(keyword_paths(recipe).values()), recipe.filter.keywords.languages)
    if recipe.filter.decontaminate.evaluation:  # not sooner: it loads Ray
        from qwen_core.jobs.contamination import evaluation_items

        evaluation_items(recipe)


def _choose_ray(address: str | None) -> None:
    """Set the Ray to run on; ask whether anything answers there, for Ray itself would try for minutes."""
    if address:
        os.environ["RAY_ADDRESS"] = address
    chosen = os.environ.get("RAY_ADDRESS", "local")
    if chosen in ("local", "auto"):
        return
    if chosen.startswith("http"):
        raise PlatformError(f"{chosen} is the address of Ray's pages: give --address HOST:6379, or ray://HOST:10001")
    parts = urlsplit(chosen if "://" in chosen else f"//{chosen}")
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=_ANSWER_SECONDS).close()
    except (OSError, ValueError) as fault:
        raise _no_ray(chosen, fault) from fault


def _no_ray(address: str, fault: Exception) -> PlatformError:
    return PlatformError(
        f"no Ray answers at {address} ({fault}): check --address or RAY_ADDRESS; without both this machine alone works"
    )


def _make(recipe: Recipe, place: str, console: Console) -> dict[str, Any]:
    """Run the stages, lay out their result, and tell of it."""
    store, started = store_of(place), time.monotonic()
    if "://" in place:
        check_bytes_come_back(place)
    with tempfile.TemporaryDirectory() as folder:
        manifests = _run(recipe, store, folder, console)
        _publish(store, manifests["dedup"], place)
        filesystem, path = open_filesystem(f"{place}/report")
        if filesystem.get_file_info(path).type == pafs.FileType.Directory:
            filesystem.delete_dir(path)
        upload(folder, f"{place}/report")
    report = report_of(manifests) | {"seconds": round(time.monotonic() - started, 1), "output": place}
    Store(place).write(f"{place}/report.json", json.dumps(report, ensure_ascii=False, indent=1))
    return report


def _base(store: Store, append: bool) -> list[str]:
    """Name what is added to, as an override of the recipe."""
    if not append:
        return []
    known = store.of_run(RUN_KEY)
    if "ingest" not in known:
        raise InputError(f"nothing to append to in {store.root}: leave --append out the first time")
    return [f"ingest.base={json.dumps(known['ingest'].uri, ensure_ascii=False)}"]  # quoted, for ': ' and ' #' in it


def _run(recipe: Recipe, store: Store, folder: str, console: Console) -> dict[str, Manifest]:
    """Run the stages one after another, shown on a board."""
    from qwen_core.jobs.runner import run_stage
    from qwen_core.tracking.folder import SCHEME

    manifests = {}
    with _quiet(), insistent_interrupt(), Board(console, STAGES) as board, listening(board.progress):
        for name in STAGES:
            board.state(name, "running")
            try:
                manifests[name], is_reused = run_stage(name, recipe, RUN_KEY, store, f"{SCHEME}{folder}")
                _keep_report(manifests[name], f"{folder}/{name}", is_reused)
            except BaseException as fault:
                board.state(name, "failed")
                if isinstance(fault, ConnectionError) and "RAY_ADDRESS" in os.environ:
                    raise _no_ray(os.environ["RAY_ADDRESS"], fault) from fault
                raise
            board.state(name, "reused" if is_reused else "done")
    return manifests


def _keep_report(manifest: Manifest, folder: str, is_reused: bool) -> None:
    """Lay a stage's tables and plots beside its artifact; of one that is used again take them from there."""
    kept = f"{manifest.data_uri}/report"
    filesystem, path = open_filesystem(kept)
    if not is_reused:
        upload(folder, kept)
    elif filesystem.get_file_info(path).type == pafs.FileType.Directory:
        pafs.copy_files(path, folder, source_filesystem=filesystem, destination_filesystem=pafs.LocalFileSystem())


@contextmanager
def _quiet() -> Iterator[None]:
    """Show the board alone, not the lines that jobs print for logs; end, or leave, a Ray that was begun here."""
    was_connected = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        import ray

        if not was_connected:
            ray.shutdown()


def _publish(store: Store, manifest: Manifest, place: str) -> None:
    """Lay the corpus's files into `documents`: as links where the file system has them, else as copies."""
    from qwen_core.jobs.corpus import document_files

    filesystem, path = open_filesystem(f"{place}/documents")
    files = {f"part-{number:05d}.parquet": uri for number, uri in enumerate(document_files(manifest))}
    if "://" in place:  # an object store has no folders to rename: each file is replaced, then the rest goes
        for name, uri in files.items():
            filesystem.copy_file(store.path_of(uri), f"{path}/{name}")
        for info in filesystem.get_file_info(pafs.FileSelector(path)):
            if info.base_name not in files:
                filesystem.delete_file(info.path)
        return
    fresh = f"{path}.new"
    for folder in (fresh, f"{path}.old"):
        shutil.rmtree(folder, ignore_errors=True)
    Path(fresh).mkdir(parents=True)
    for name, uri in files.items():
        _link(uri, f"{fresh}/{name}")
    if Path(path).exists():
        Path(path).rename(f"{path}.old")
    Path(fresh).rename(path)
    shutil.rmtree(f"{path}.old", ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def manifests_of(place: str) -> dict[str, Manifest]:
    """Read the manifests of an output folder.

    Args:
        place: As `curate` was given it.

    Returns:
        By stage.

    Raises:
        ArtifactError: There is no finished corpus.
    """
    store = store_of(place)
    last = store.of_run(RUN_KEY).get("dedup")
    if last is None:
        raise ArtifactError(
            f"{place} holds no finished corpus: make one with qwen-core curate INPUT... --output {place}"
        )
    # By what the corpus was made of: a later run that was stopped halfway has newer artifacts of the first stages.
    kept = store.load(last.inputs["filter"])
    made_of = {name: store.load(uri) for name, uri in kept.inputs.items()}
    return {**made_of, "filter": kept, "dedup": last}
