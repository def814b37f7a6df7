"""Keyword lists as files: JSON of terms by language, or plain text with a term a line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from qwen_core.errors import InputError

EXPRESSION = "re:"
"""What a term begins with that is a regular expression."""

_LANGUAGE = re.compile(r"(?:.*[._-])?([a-z]{2,3})$")
_SHOWN = 20


def read_keywords(paths: Sequence[Path], languages: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """Read lists of terms.

    Args:
        paths: `.json` of terms by language (`*` for every language), or text files with a term a line, of the language
            that their name ends in (`en.txt`, `words.en.txt`). A term that begins with `re:` is a regular expression.
        languages: Languages of text files by path or name, where the name does not tell.

    Returns:
        Terms by language, in lower case, all files together, sorted.

    Raises:
        InputError: A file cannot be read, its language is unknown, or an expression is broken; all faults are named.
    """
    terms: dict[str, set[str]] = {}
    faults: list[str] = []
    for path in paths:
        for language, place, term in _entries(path, languages or {}, faults):
            fault = _fault(term)
            if fault:
                faults.append(f"{place}: {fault}")
            else:
                terms.setdefault(language, set()).add(term)
    if faults:
        more = f"\n... and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise InputError(f"{len(faults)} faults in keyword lists:\n" + "\n".join(faults[:_SHOWN]) + more)
    return {language: sorted(listed) for language, listed in terms.items()}


def _entries(path: Path, languages: Mapping[str, str], faults: list[str]) -> list[tuple[str, str, str]]:
    """List a file's terms, each with its language and its place."""
    try:
        raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        faults.append(f"{path}: cannot be read ({error.strerror})")
        return []
    if path.suffix == ".json":
        return _json_entries(path, raw, faults)
    named = _LANGUAGE.match(path.stem)
    language = languages.get(str(path)) or languages.get(path.name) or (named and named[1])
    if not language:
        faults.append(f"{path}: the name does not end in a language, such as en.txt; set filter.keywords.languages")
        return []
    found = []
    for number, line in enumerate(raw.splitlines(), 1):
        place = f"{path}, line {number}"
        try:
            term = _folded(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            faults.append(f"{place}: not UTF-8 (byte 0x{line[error.start]:02x}); save the list as UTF-8")
            continue
        if term:
            found.append((language, place, term))
    return found


def _json_entries(path: Path, raw: bytes, faults: list[str]) -> list[tuple[str, str, str]]:
    expected = 'expected JSON such as {"en": ["term"]}'
    try:
        tree = json.loads(raw)
    except ValueError as error:  # a broken encoding is one too
        faults.append(f"{path}: {expected} ({error})")
        return []
    if not isinstance(tree, dict):
        faults.append(f"{path}: {expected}, got a {type(tree).__name__}")
        return []
    found = []
    for language, listed in tree.items():
        if not isinstance(listed, list) or not all(isinstance(term, str) for term in listed):
            faults.append(f"{path}, '{language}': {expected}")
            continue
        found += [(language, f"{path}, '{language}' term {n}", _folded(term)) for n, term in enumerate(listed, 1)]
    return found


def _folded(term: str) -> str:
    """Lower-case a term; an expression stays, for in it a capital has a meaning (`\\S`)."""
    term = term.strip()
    return term if term.startswith(EXPRESSION) else " ".join(term.lower().split())


def _fault(term: str) -> str | None:
    """Tell what is wrong with a term."""
    expression = term.removeprefix(EXPRESSION) if term.startswith(EXPRESSION) else None
    if not term or expression == "":
        return "an empty term would match everything"
    if expression is None:
        return None
    try:
        is_empty_match = re.compile(expression).match("") is not None
        pc.match_substring_regex(pa.array([""]), pattern=expression)
    except (re.error, pa.ArrowInvalid) as error:
        return f"'{expression}' is no regular expression that RE2 and Python both read ({error})"
    return f"'{expression}' matches the empty text, and so everything" if is_empty_match else None
