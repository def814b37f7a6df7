"""What stages read beside the artifacts of their run: which files and models these are, and their hashes.

The hashes go into the fingerprint. Apart from the jobs, and light to import: a stage whose fingerprint exists is told
so before its job is loaded.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from qwen_core.artifacts import Store
from qwen_core.config import Recipe
from qwen_core.data.read.kinds import kind_of
from qwen_core.data.read.ranges import Range, plan_ranges
from qwen_core.demo import environment
from qwen_core.errors import InputError
from qwen_core.jobs.base import base_hash, stage_of
from qwen_core.jobs.listing import File, Listing, list_files, title_of

_BUNDLED_DOCUMENTS = ("documents_zh.jsonl", "documents_en.jsonl")
_HASHING_THREADS = 8


@dataclass(frozen=True)
class Source:
    """A file of documents, or a range of one.

    Attributes:
        path: Local path or address.
        name: Short name of what it belongs to.
        kind: `file`; `translation`, `metadata`, `prose` or `code` in the environment; `unreadable_path` and
            `unknown_format` stand for what is only counted.
        size: Bytes of the range.
        start: First byte of the range, or row group of Parquet.
        end: Where the range stops; `None` for the file's end.
        content_hash: Of kind, range and content, of nothing else; empty where it could not be read.
        count: Files that it stands for.
    """

    path: str
    name: str
    kind: str
    size: int
    start: int = 0
    end: int | None = None
    content_hash: str = ""
    count: int = 1


def source_hashes(stage: str, recipe: Recipe) -> dict[str, str]:
    """Hash what a stage reads from outside the store.

    Args:
        stage: The stage's word.
        recipe: Names the inputs.

    Returns:
        Content hashes by name; empty for a stage that reads artifacts alone.

    Raises:
        InputError: Files are missing, or none can be read; all are named.
    """
    readers: dict[str, Callable[[Recipe], dict[str, str]]] = {
        "ingest": _document_hashes,
        "classifiers": _example_hashes,
        "filter": lambda recipe: _content_hashes(keyword_paths(recipe) | evaluation_paths(recipe)),
        "tokenizer": lambda recipe: _content_hashes(tokenizer_paths(recipe)),
        "instruct": lambda recipe: _content_hashes(instruction_paths(recipe)),
        "preference": lambda recipe: _content_hashes(preference_paths(recipe)),
    }
    return readers[stage](recipe) if stage in readers else {}


def origin_hashes(stage: str, recipe: Recipe, store: Store, tracking_uri: str | None) -> dict[str, str]:
    """Hash what a stage goes on from that its run did not make: an earlier corpus, weights that exist.

    Args:
        stage: The stage's word.
        recipe: Names it.
        store: Where artifacts lie.
        tracking_uri: MLflow server or database, for models in its registry.

    Returns:
        Hashes by name; empty for a stage that begins from nothing.

    Raises:
        ArtifactError: There is no such corpus or model, or the model's folder is not whole.
    """
    if stage == "ingest":
        return base_hash(recipe, store)
    if stage in ("tokenizer", "pack"):
        return _kept_hashes(stage, recipe, store)
    if stage != "pretrain" or not recipe.pretrain.init_from:
        return {}
    from qwen_core.jobs.found import find_model  # loads torch

    return find_model(recipe.pretrain.init_from, store, tracking_uri, ("pretrain",)).hashes()


def _kept_hashes(stage: str, recipe: Recipe, store: Store) -> dict[str, str]:
    """Name the artifacts that are kept from earlier runs by their fingerprints: a run key tells of no content."""
    hashes = {}
    named = {
        "tokenizer": (("keep_from", "tokenizer"),),
        "pack": (("heldout_from", "pack"), ("new_from", "ingest")),
    }
    for key, made_by in named[stage]:
        name = getattr(getattr(recipe, stage), key)
        if name is not None:
            hashes[key] = stage_of(name, f"{stage}.{key}", made_by, store).fingerprint
    return hashes


def hash_file(path: Path) -> str:
    """Hash a file's content.

    Args:
        path: The file.

    Returns:
        Hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def document_sources(recipe: Recipe) -> list[Source]:
    """List the files of documents that `ingest` reads.

    Args:
        recipe: Names the inputs.

    Returns:
        The files, in the order of the inputs.

    Raises:
        InputError: An input names no file, or none that can be read.
    """
    section = recipe.ingest
    if not section.inputs:
        raise InputError("ingest.inputs is empty: name files, folders or globs (qwen-core run --input PATH)")
    found: list[Source] = []
    for name in section.inputs:
        found += _environment(section.max_raw_bytes) if name == "environment" else _files(name, section.part_bytes)
    # A file that two inputs name is read once: its documents would bear the same ids.
    unique: dict[tuple[str, int, str], Source] = {}
    for source in found:
        unique.setdefault((source.path, source.start, source.kind), source)
    return list(unique.values())


def example_paths(recipe: Recipe, classifier: str) -> dict[str, Path]:
    """Name the files of labelled examples of a classifier, `quality` or `toxicity`."""
    return _input_paths(getattr(recipe.classifiers, f"{classifier}_examples"), f"{classifier}.jsonl")


def keyword_paths(recipe: Recipe) -> dict[str, Path]:
    """Name the keyword lists of `filter`."""
    return _input_paths(recipe.filter.keywords.lists, "keywords.json")


def evaluation_paths(recipe: Recipe) -> dict[str, Path]:
    """Name the evaluation sets that `filter` keeps out of the corpus."""
    return {name: Path(name).expanduser() for name in recipe.filter.decontaminate.evaluation}


def tokenizer_paths(recipe: Recipe) -> dict[str, Path]:
    """Name the file of the tokenizer to import, where there is one."""
    from qwen_core.tokenizer import existing_file  # loads the tokenizers library: only where it is needed

    folder = recipe.tokenizer.import_path
    return {"import_path": existing_file(folder)} if folder else {}


def instruction_paths(recipe: Recipe) -> dict[str, Path]:
    """Name the files of `instruct`."""
    return _input_paths(recipe.instruct.inputs, "instructions.jsonl")


def preference_paths(recipe: Recipe) -> dict[str, Path]:
    """Name the files of `preference`."""
    return _input_paths(recipe.preference.inputs, "preferences.jsonl")


def reference_paths(recipe: Recipe) -> dict[str, Path]:
    """Name the files whose texts are all of high, or all of low quality; the sample of the corpus is none of them."""
    section = recipe.classifiers
    names = [*section.quality_positives, *section.quality_negatives]
    return {name: Path(name).expanduser() for name in names if name != "ingest"}


def _example_hashes(recipe: Recipe) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for name in recipe.classifiers.train:
        paths = example_paths(recipe, name) | (reference_paths(recipe) if name == "quality" else {})
        hashes |= {f"{name}/{path}": digest for path, digest in _content_hashes(paths).items()}
    return hashes


def _input_paths(inputs: Sequence[str], bundled: str) -> dict[str, Path]:
    """Resolve inputs by name; the word `bundled` stands for the project's own file."""
    own = Path(str(resources.files("qwen_core.demo") / bundled))
    return {name: own if name == "bundled" else Path(name).expanduser() for name in inputs}


def _content_hashes(paths: dict[str, Path]) -> dict[str, str]:
    missing = [str(path) for path in paths.values() if not path.is_file()]
    if missing:
        raise InputError(f"no such file: {', '.join(missing)}")
    return {name: hash_file(path) for name, path in paths.items()}


def _document_hashes(recipe: Recipe) -> dict[str, str]:
    model = recipe.ingest.language_model
    hashes = _content_hashes({"language_model": Path(model).expanduser()}) if model else {}
    for name in recipe.ingest.inputs:
        if name == "environment":
            # Its files follow from the versions of what is installed; reading them all would take longer than the rest.
            told = json.dumps([environment.VERSION, environment.installed()])
            hashes[name] = hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
        else:
            digest = hashlib.blake2b(digest_size=16)
            for source in _files(name, recipe.ingest.part_bytes):
                digest.update(f"{source.path}\0{source.content_hash}\0".encode(errors="surrogateescape"))
            hashes[name] = digest.hexdigest()
    return hashes


def _files(name: str, range_bytes: int) -> list[Source]:
    """List the files of one input, large ones in ranges; what cannot be read is listed to be counted."""
    if name == "bundled":
        folder = Path(str(resources.files("qwen_core.demo")))
        title, listing = name, Listing([_file(folder / file) for file in _BUNDLED_DOCUMENTS])
    else:
        title, listing = title_of(name), list_files(name)
    readable = [file for file in listing.files if kind_of(file.path)]
    if not readable:
        raise InputError(
            f"{name} holds no file that can be read: JSONL, JSON, CSV, TSV, Parquet, text, Markdown, HTML, source "
            f"code, WARC, WET and ARC are (all but Parquet also .gz, .zst, .bz2 or .xz)"
        )
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        planned = list(pool.map(lambda file: _ranges(file, range_bytes), readable))
    found = [
        Source(file.path, title, "file", part.size, part.start, part.end, part.content_hash)
        for file, parts in zip(readable, planned, strict=True)
        for part in parts
    ]
    found += [Source(path, title, "unreadable_path", 0) for path in listing.unreadable]
    unknown = len(listing.files) - len(readable)
    return [*found, Source(name, title, "unknown_format", 0, count=unknown)] if unknown else found


@functools.lru_cache(maxsize=100_000)
def _ranges(file: File, range_bytes: int) -> tuple[Range, ...]:
    """Plan a file once for fingerprint and job; one that has gone or is closed to us is counted when it is read."""
    try:
        return tuple(plan_ranges(file.path, kind_of(file.path) or "", file.size, range_bytes))
    except (OSError, InputError):
        return (Range(0, None, file.size, ""),)


def _file(path: Path) -> File:
    status = path.stat()
    return File(str(path), status.st_size, status.st_mtime_ns)


def _environment(max_bytes: int | None) -> list[Source]:
    """List the environment's files; the versions of what is installed stand for their content."""
    told = json.dumps([environment.VERSION, environment.installed()])
    chosen = environment.environment_files(max_bytes or 10**12)
    return [
        Source(
            str(path),
            "environment",
            kind,
            path.stat().st_size,
            content_hash=hashlib.blake2b(f"{told}\0{kind}\0{path}".encode(), digest_size=16).hexdigest(),
        )
        for path, kind in chosen
    ]
