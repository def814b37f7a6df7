"""Labelled examples: JSON lines, CSV, TSV, Parquet or plain text in, texts with label and language out.

A row that cannot be used is counted under a reason, and the others are read: `invalid_json`, `missing_text`,
`missing_label`, `unknown_label`, `broken_row`, `invalid_encoding` (replaced, and the text is kept).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qwen_core.errors import InputError

_COMPRESSIONS = (".gz", ".zst", ".bz2")
_KINDS = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".txt": "lines"}
csv.field_size_limit(2**31 - 1)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """A labelled text; `language` is `None` where nobody told it."""

    text: str
    label: str
    language: str | None = None


@dataclass(frozen=True)
class Columns:
    """Where a file has what an example needs.

    Attributes:
        text: Column of the text.
        label: Column of the label.
        language: Column of the language; it may be missing.
        labels: The classifier's label for each value of the label column; empty takes the values as they are.
        fixed_label: Label of every row, instead of a column.
        fixed_language: Language of every row, instead of a column.
    """

    text: str = "text"
    label: str = "label"
    language: str = "language"
    labels: Mapping[str, str] = field(default_factory=dict)
    fixed_label: str | None = None
    fixed_language: str | None = None


def read_examples(path: Path, columns: Columns, labels: Sequence[str]) -> tuple[list[Example], Counter[str]]:
    """Read labelled examples.

    Args:
        path: `.jsonl`, `.csv`, `.tsv`, `.parquet`, or `.txt` with a text a line; also `.gz`, `.zst`, `.bz2`.
        columns: Where the file has them.
        labels: The labels that the classifier knows.

    Returns:
        The examples, and how many rows were left out, by reason.

    Raises:
        InputError: The file is missing, cannot be read, has no such columns, or no row of it can be used.
    """
    drops: Counter[str] = Counter()
    try:
        examples = list(_examples(_rows(path, columns, drops), columns, labels, drops))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not examples:
        raise InputError(
            f"{path} has no example that can be used ({dict(drops) or 'no rows'}): text is looked for in "
            f"'{columns.text}', the label in '{columns.label}', and labels are {' or '.join(labels)}. "
            f"Map other names in the recipe's classifiers.columns"
        )
    return examples, drops


def split_examples(examples: Sequence[Example], heldout_ratio: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Split examples into training and held-out ones, each label of each language by its share.

    The order follows from the texts' hashes, so neither the order of the files nor an added example moves another one,
    and a text that occurs twice is never on both sides.

    Args:
        examples: All.
        heldout_ratio: Of each label.
        seed: Of the shuffle.

    Returns:
        Training and held-out examples, shuffled.

    Raises:
        InputError: There are fewer than two labels, or too few examples of one.
    """
    found = Counter(example.label for example in examples)
    if len(found) < 2 or min(found.values()) < 2:
        raise InputError(
            f"a classifier needs examples of two labels, at least two of each; got {dict(found) or 'none'}"
        )
    groups: dict[tuple[str | None, str], list[tuple[str, Example]]] = {}
    for example in examples:
        groups.setdefault((example.language, example.label), []).append((_rank(example.text, seed), example))
    train, heldout = [], []
    for members in groups.values():
        members.sort(key=lambda member: member[0])
        cut = round(len(members) * heldout_ratio)
        while 0 < cut < len(members) and members[cut][0] == members[cut - 1][0]:
            cut += 1
        heldout += members[:cut]
        train += members[cut:]
    return _shuffled(train), _shuffled(heldout)


def _shuffled(ranked: list[tuple[str, Example]]) -> list[Example]:
    return [example for _, example in sorted(ranked, key=lambda member: (member[0][::-1], member[1].label))]


def _rank(text: str, seed: int) -> str:
    return hashlib.blake2b(f"{seed}/{text}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _examples(rows: Iterable[Row], columns: Columns, labels: Sequence[str], drops: Counter[str]) -> Iterator[Example]:
    for row in rows:
        text = row.get(columns.text)
        if not isinstance(text, str) or not text.strip():
            drops["missing_text"] += 1
            continue
        told = columns.fixed_label if columns.fixed_label is not None else row.get(columns.label)
        if told is None or told == "":
            drops["missing_label"] += 1
            continue
        label = columns.labels.get(str(told), str(told))
        if label not in labels:
            drops["unknown_label"] += 1
            continue
        language = columns.fixed_language or row.get(columns.language) or None
        yield Example(text, label, str(language) if language else None)


def _rows(path: Path, columns: Columns, drops: Counter[str]) -> Iterator[Row]:
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    name = path.with_suffix("") if path.suffix in _COMPRESSIONS else path
    if name.suffix == ".parquet":
        yield from _parquet_rows(path, columns)
        return
    kind = _KINDS.get(name.suffix)
    if kind is None:
        raise InputError(f"{path}: examples are read from {', '.join(_KINDS)} and .parquet files")
    with pa.input_stream(str(path)) as stream:
        text = _decoded(stream.read(), drops)
    if kind == "json":
        yield from _json_rows(text, drops)
    elif kind == "lines":
        yield from ({columns.text: line} for line in text.split("\n") if line.strip())
    else:
        yield from _csv_rows(path, text, "\t" if kind == "tsv" else ",", columns, drops)


def _decoded(raw: bytes, drops: Counter[str]) -> str:
    """Read UTF-8, or GB18030 (Chinese tables are often saved so), or UTF-8 with what is broken replaced."""
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    text = raw.decode("utf-8-sig", "replace")
    drops["invalid_encoding"] += sum("\ufffd" in line for line in text.split("\n"))
    return text


def _json_rows(text: str, drops: Counter[str]) -> Iterator[Row]:
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            yield row
        else:
            drops["invalid_json"] += 1


def _csv_rows(path: Path, text: str, delimiter: str, columns: Columns, drops: Counter[str]) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    _check_columns(path, reader.fieldnames or (), columns)
    while True:
        try:
            row = next(reader, None)
        except csv.Error:
            drops["broken_row"] += 1
            continue
        if row is None:
            return
        if None in row or None in row.values():  # more or fewer fields than the header
            drops["broken_row"] += 1
        else:
            yield row


def _parquet_rows(path: Path, columns: Columns) -> Iterator[Row]:
    file = pq.ParquetFile(path)
    names = file.schema_arrow.names
    _check_columns(path, names, columns)
    wanted = [name for name in (columns.text, columns.label, columns.language) if name in names]
    for batch in file.iter_batches(columns=wanted):
        yield from batch.to_pylist()


def _check_columns(path: Path, names: Sequence[str], columns: Columns) -> None:
    needed = [columns.text] + ([columns.label] if columns.fixed_label is None else [])
    missing = [name for name in needed if name not in names]
    if missing:
        raise InputError(
            f"{path} has no column {' and '.join(repr(name) for name in missing)}; its columns are: "
            f"{', '.join(names) or 'none'}. Map them in the recipe's classifiers.columns"
        )
