"""The demo's raw text without a download: the Python environment that it runs in.

Long descriptions in package metadata, licence texts (real near duplicates), documentation files, translations of
web pages (many languages) and source text with its docstrings. Chosen by rule alone: the same environment gives the
same files in the same order.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

VERSION = "1"
"""Part of the fingerprint: raised when the choice changes."""

_MIN_BYTES, _MAX_BYTES = 600, 150_000
_PROSE = (".md", ".rst", ".txt")
_NOISE = ("requirements", "top_level", "entry_points", "SOURCES", "vectors", "wordlist", "tld", "dictionary")
_SOURCE_SHARE = 0.55


def installed() -> dict[str, str]:
    """List the installed distributions.

    Returns:
        Versions by name, for the fingerprint.
    """
    found = {(dist.metadata["Name"] or "").lower(): dist.version for dist in importlib.metadata.distributions()}
    return dict(sorted((name, version) for name, version in found.items() if name))


def environment_files(max_bytes: int) -> list[tuple[Path, str]]:
    """Choose files of the environment.

    Args:
        max_bytes: Raw bytes in all, about.

    Returns:
        Paths and how to read each: `prose`, `metadata`, `translation` or `code`. Prose of every kind comes first;
        source text, spread evenly over all packages, fills the rest.
    """
    root = Path(sysconfig.get_paths()["purelib"])
    chosen: list[tuple[Path, str]] = []
    total = 0
    for path, kind in [*_prose(root), *_translations(root)]:
        size = path.stat().st_size
        if total + size <= max_bytes * (1 - _SOURCE_SHARE):
            chosen.append((path, kind))
            total += size
    for path in sorted(root.rglob("*.py"), key=lambda path: _rank(path, root)):
        size = path.stat().st_size
        if _MIN_BYTES <= size <= _MAX_BYTES // 3 and "test" not in str(path.relative_to(root)):
            chosen.append((path, "code"))
            total += size
        if total >= max_bytes:
            break
    return chosen


def read_translation(path: Path) -> str:
    """Bring a translation catalogue (nested JSON) into running text, one message a line.

    Args:
        path: The catalogue.

    Returns:
        Its messages without keys; empty where it is no JSON.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return ""
    return "\n".join(_leaves(tree))


def read_metadata(path: Path) -> str:
    """Take the long description out of a distribution's METADATA.

    Args:
        path: The file.

    Returns:
        What follows the header fields.
    """
    _, _, body = path.read_text(encoding="utf-8", errors="replace").partition("\n\n")
    return body


def _prose(root: Path) -> Iterator[tuple[Path, str]]:
    """Find metadata, licences and documentation, sorted by path."""
    for path in sorted(root.rglob("*")):
        name = path.name
        if name == "METADATA":
            yield path, "metadata"
        elif (
            _is_prose(path)
            and not any(noise in name for noise in _NOISE)
            and path.is_file()
            and _MIN_BYTES <= path.stat().st_size <= _MAX_BYTES
        ):
            yield path, "prose"


def _is_prose(path: Path) -> bool:
    return path.suffix.lower() in _PROSE or path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE"))


def _translations(root: Path) -> Iterator[tuple[Path, str]]:
    """Find message catalogues of web pages: JSON below a folder of locales."""
    for path in sorted(root.rglob("*.json")):
        if {"locales", "i18n", "locale"} & set(path.parts):
            yield path, "translation"


def _rank(path: Path, root: Path) -> bytes:
    """Order source files by hash of their place, so that each package gets its share."""
    return hashlib.blake2b(str(path.relative_to(root)).encode(), digest_size=8).digest()


def _leaves(tree: object) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _leaves(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _leaves(value)
