"""What stages read from outside the store: which files these are, and their hashes for the fingerprint.

Apart from the jobs, and light to import: a stage whose fingerprint exists is told so before its job is loaded.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from qwen_core.config import Recipe
from qwen_core.data.read import kind_of
from qwen_core.demo import environment
from qwen_core.errors import InputError

_BUNDLED_DOCUMENTS = ("documents_zh.jsonl", "documents_en.jsonl")


@dataclass(frozen=True)
class Source:
    """A file of documents: its path, the short name of what it belongs to, how to read it, its size in bytes."""

    path: str
    name: str
    kind: str
    size: int


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
        "classifiers": lambda recipe: {
            f"{name}/{path}": digest
            for name in ("quality", "toxicity")
            for path, digest in _content_hashes(example_paths(recipe, name)).items()
        },
        "filter": lambda recipe: _content_hashes(keyword_paths(recipe)),
        "instruct": lambda recipe: _content_hashes(instruction_paths(recipe)),
        "preference": lambda recipe: _content_hashes(preference_paths(recipe)),
    }
    return readers[stage](recipe) if stage in readers else {}


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
        found += _environment(section.max_raw_bytes) if name == "environment" else _files(name)
    return found


def example_paths(recipe: Recipe, classifier: str) -> dict[str, Path]:
    """Name the files of labelled examples of a classifier, `quality` or `toxicity`."""
    return _input_paths(getattr(recipe.classifiers, f"{classifier}_examples"), f"{classifier}.jsonl")


def keyword_paths(recipe: Recipe) -> dict[str, Path]:
    """Name the keyword lists of `filter`."""
    return _input_paths(recipe.filter.keywords, "keywords.json")


def instruction_paths(recipe: Recipe) -> dict[str, Path]:
    """Name the files of `instruct`."""
    return _input_paths(recipe.instruct.inputs, "instructions.jsonl")


def preference_paths(recipe: Recipe) -> dict[str, Path]:
    """Name the files of `preference`."""
    return _input_paths(recipe.preference.inputs, "preferences.jsonl")


def _input_paths(inputs: Sequence[str], bundled: str) -> dict[str, Path]:
    """Resolve inputs by name; the word `bundled` stands for the project's own file."""
    own = Path(str(resources.files("qwen_core.demo") / bundled))
    return {name: own if name == "bundled" else Path(name).expanduser() for name in inputs}


def _content_hashes(paths: dict[str, Path]) -> dict[str, str]:
    missing = [str(path) for path in paths.values() if not path.is_file()]
    if missing:
        raise InputError(f"no such file: {', '.join(missing)}")
    return {name: _content_hash(path).hex() for name, path in paths.items()}


def _document_hashes(recipe: Recipe) -> dict[str, str]:
    hashes = {}
    for name in recipe.ingest.inputs:
        if name == "environment":
            # Its files follow from the versions of what is installed; reading them all would take longer than the rest.
            told = json.dumps([environment.VERSION, environment.installed()])
            hashes[name] = hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
        else:
            digest = hashlib.blake2b(digest_size=16)
            for source in _files(name):
                digest.update(source.path.encode() + b"\0" + _content_hash(Path(source.path)))
            hashes[name] = digest.hexdigest()
    return hashes


def _files(name: str) -> list[Source]:
    """List the files of one input."""
    if name == "bundled":
        folder = Path(str(resources.files("qwen_core.demo")))
        return [
            Source(str(folder / file), "bundled", "file", (folder / file).stat().st_size) for file in _BUNDLED_DOCUMENTS
        ]
    place = Path(name).expanduser()
    if place.is_dir():
        paths = sorted(
            p
            for p in place.rglob("*")
            if p.is_file() and not any(q.startswith(".") for q in p.relative_to(place).parts)
        )
    else:
        paths = [place] if place.is_file() else sorted(Path(p) for p in glob.glob(name, recursive=True))  # noqa: PTH207 - absolute patterns
    if not paths:
        raise InputError(f"no such file or folder: {name}")
    readable = [path for path in paths if kind_of(path)]
    if not readable:
        raise InputError(
            f"{name} holds no file that can be read: JSONL, JSON lines, Parquet, text, Markdown, source code, WARC and "
            f"WET are (JSONL, text and crawl files also .gz or .zst)"
        )
    title = place.name.split(".")[0] or place.name
    return [Source(str(path), title, "file", path.stat().st_size) for path in readable]


def _environment(max_bytes: int | None) -> list[Source]:
    chosen = environment.environment_files(max_bytes or 10**12)
    return [Source(str(path), "environment", kind, path.stat().st_size) for path, kind in chosen]


def _content_hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
