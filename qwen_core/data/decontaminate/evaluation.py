"""Items of evaluation sets, read from files: what training data must not hold.

JSON lines (plain or gzip), plain text ─▶ items ─▶ `ngrams`
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_core.errors import InputError


@dataclass(frozen=True)
class Item:
    """One item of an evaluation set.

    Attributes:
        evaluation: Name of the set.
        name: Of the item in it, such as its line.
        passages: Question, answer and what else must not be trained on; no n-gram reaches from one to the next.
    """

    evaluation: str
    name: str
    passages: tuple[str, ...]


def read_items(path: Path, fields: Sequence[str] = (), evaluation: str | None = None) -> list[Item]:
    """Read an evaluation set.

    Args:
        path: `.jsonl` or `.json` (an object a line), `.txt` (items parted by empty lines); each also with `.gz`.
        fields: Keys whose texts count, at any depth below them, such as `question`, `answer`; empty takes every text.
            Of plain text there are none.
        evaluation: Name of the set; the file's name where there is none.

    Returns:
        Its items, named by their line, or by their place in plain text.

    Raises:
        InputError: The file cannot be read, or a record lacks a field.
    """
    stem = path.name.removesuffix(".gz")
    name = evaluation or Path(stem).stem
    try:
        content = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"evaluation set {path}: {error}; give a readable file in UTF-8") from error
    if stem.endswith((".jsonl", ".json")):
        return [
            Item(name, str(number), _passages(line, fields, f"{path}, line {number}"))
            for number, line in enumerate(content.split("\n"), start=1)
            if line.strip()
        ]
    paragraphs = [text for text in content.split("\n\n") if text.strip()]
    return [Item(name, str(number), (text,)) for number, text in enumerate(paragraphs, start=1)]


def _passages(line: str, fields: Sequence[str], place: str) -> tuple[str, ...]:
    """Take the texts of one record."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InputError(f"evaluation set {place}: no JSON ({error}); give one object a line") from error
    if not isinstance(record, dict):
        raise InputError(f"evaluation set {place}: a {type(record).__name__} where an object should be")
    missing = [field for field in fields if field not in record]
    if missing:
        raise InputError(
            f"evaluation set {place}: no field {', '.join(missing)}; there are {', '.join(record)}: change `fields`"
        )
    return tuple(text for field in fields or record for text in _texts(record[field]))


def _texts(value: Any) -> Iterator[str]:
    """Find all texts in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
