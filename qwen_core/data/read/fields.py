"""Which key or column of a record is what: text, address, time, licence; the rest goes into `metadata`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa

from qwen_core.data.extract import main_text
from qwen_core.data.read.encoding import without_surrogates
from qwen_core.data.read.report import Report

MISSING = "missing_text"
_ROLES = ("source", "url", "timestamp", "licence", "id")
_CONTENT = ("content", 0)
_NESTED = (dict, list)
_MAX_METADATA_BYTES = 32_768
_MAX_ROWS = 2000
_MAX_BYTES = 8_000_000

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("position", pa.string()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("url", pa.string()),
        ("timestamp", pa.string()),
        ("is_code", pa.bool_()),
        ("metadata", pa.string()),
    ]
)
"""Raw records in columns: `position` tells where in the file at `path`; `metadata` is JSON."""


@dataclass(frozen=True)
class Fields:
    """Names of keys or columns, dotted where nested; of all but `text` the first that a record has counts.

    Attributes:
        text: Hold the text; all are joined by an empty line.
        html: Hold a page whose main text is wanted, for records without `text`.
        source: Tells what the record belongs to.
        url: Holds its address.
        timestamp: Holds when it was written or fetched.
        licence: Holds its licence.
        id: Holds its own identifier, for `metadata`.
    """

    text: tuple[str, ...] = ("text",)
    html: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    url: tuple[str, ...] = ("url", "uri", "link")
    timestamp: tuple[str, ...] = ("timestamp", "date", "created_at")
    licence: tuple[str, ...] = ("licence", "license")
    id: tuple[str, ...] = ("id",)

    @property
    def told(self) -> frozenset[str]:
        """Top-level names whose values are content, and no metadata."""
        return frozenset(name for name in (*self.text, *self.html) if "." not in name)

    @property
    def has_text(self) -> frozenset[str]:
        """Top-level names of which a table must have one."""
        return frozenset(name.partition(".")[0] for name in (*self.text, *self.html))


@dataclass
class Rows:
    """Raw records on their way into a table.

    Attributes:
        fields: Which key is what.
        report: Gets what is lost.
        max_bytes: Longest text.
    """

    fields: Fields
    report: Report
    max_bytes: int
    _columns: list[list[Any]] = field(default_factory=lambda: [[] for _ in SCHEMA])
    _bytes: int = 0

    def __post_init__(self) -> None:
        named = [(role, rank, name) for role in _ROLES for rank, name in enumerate(getattr(self.fields, role))]
        self._roles: dict[str, tuple[str, int]] = {name: (role, rank) for role, rank, name in reversed(named)}
        self._roles |= dict.fromkeys(self.fields.told, _CONTENT)
        self._nested = [told for told in named if "." in told[2]]
        self._only = self.fields.text[0] if len(self.fields.text) == 1 and "." not in self.fields.text[0] else None

    @property
    def is_full(self) -> bool:
        """Whether it is time to hand the rows on."""
        return self._bytes >= _MAX_BYTES or len(self._columns[0]) >= _MAX_ROWS

    def add_record(self, record: Any, position: int | str) -> None:
        """Take a mapping over: a JSON object, or a row of a table.

        Args:
            record: What was read; anything but a mapping with text is counted as `missing_text`, a text over the limit
                as `record_too_large`.
            position: Where in the file.
        """
        if not isinstance(record, dict):
            self.report.lose(MISSING, position)
            return
        text = record.get(self._only) if self._only else joined(record, self.fields.text)
        if text is None and self.fields.html:
            page = joined(record, self.fields.html)
            text = main_text(page) if page is not None else None
        if not text or not isinstance(text, str):
            self.report.lose("empty" if text == "" else MISSING, position)
            return
        if len(text) > self.max_bytes:
            self.report.lose("record_too_large", position)
            return
        self.add(text, position, *self._described(record))

    def add(
        self,
        text: str,
        position: int | str,
        metadata: dict[str, Any],
        url: str | None = None,
        timestamp: str | None = None,
        source: str | None = None,
        is_code: bool = False,
    ) -> None:
        """Take a text over; an empty one is counted as `empty`.

        Args:
            text: Without lone surrogates.
            position: Where in the file.
            metadata: Further fields.
            url: Address.
            timestamp: Time.
            source: What it belongs to.
            is_code: Whether it is source code.
        """
        self.report.records += 1
        if not text:
            self.report.drop("empty", position)
            return
        row = (
            self.report.path,
            str(position),
            text,
            source,
            url,
            timestamp,
            is_code,
            self._as_json(metadata, str(position)),
        )
        for column, value in zip(self._columns, row, strict=True):
            column.append(value)
        self._bytes += len(text)

    def take(self) -> pa.Table:
        """Hand the rows over as a table, and start anew.

        Returns:
            Rows of `SCHEMA`.
        """
        arrays = [pa.array(values, kind) for values, kind in zip(self._columns, SCHEMA.types, strict=True)]
        self._columns = [[] for _ in SCHEMA]
        self._bytes = 0
        return pa.Table.from_arrays(arrays, schema=SCHEMA)

    def _described(self, record: dict[str, Any]) -> tuple[dict[str, Any], str | None, str | None, str | None]:
        """Read off what a record tells beside its text: what has no role is further metadata."""
        extra: dict[str, Any] = {}
        found: dict[str, tuple[int, str, Any]] = {}
        for key, value in record.items():
            told = self._roles.get(key)
            if told is None or type(value) in _NESTED:
                if value is not None and told is not _CONTENT:
                    extra[key] = value
            elif told is not _CONTENT and value is not None and value != "":
                role, rank = told
                known = found.get(role)
                if known is None or rank < known[0]:
                    found[role], known = (rank, key, value), known
                    if known:
                        extra[known[1]] = known[2]
                else:
                    extra[key] = value
        for role, rank, name in self._nested:
            value = _value(record, name)
            if value is not None and type(value) not in _NESTED and rank < found.get(role, (99, "", None))[0]:
                found[role] = rank, name, value
        given = {role: str(value) for role, (_, _, value) in found.items()}
        extra |= {role: given[role] for role in ("licence", "id") if role in given}
        return extra, given.get("url"), given.get("timestamp"), given.get("source")

    def _as_json(self, metadata: dict[str, Any], position: str) -> str:
        metadata = metadata | {"source_file": self.report.path, "source_position": position}
        try:
            text = orjson.dumps(metadata, default=str).decode()
        except (TypeError, orjson.JSONEncodeError):  # lone surrogates, and numbers of more than 64 bits
            text = json.dumps(metadata, default=str)
        if len(text) <= _MAX_METADATA_BYTES:
            return text
        short = {k: v for k, v in metadata.items() if not isinstance(v, (dict, list)) and len(str(v)) < 1024}
        return json.dumps(short, default=str)


def joined(record: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Join the texts that a record has under some names by an empty line.

    Args:
        record: The record.
        names: Keys, dotted where nested.

    Returns:
        The text; `None` where none of the names holds a string.
    """
    found = [value for name in names if isinstance(value := _value(record, name), str)]
    return "\n\n".join(part for part in found if part) if found else None


def clean_strings(value: Any, report: Report, position: int | str) -> Any:
    """Free a JSON value's strings from lone surrogates.

    Args:
        value: As `json.loads` gives it.
        report: Gets the repairs.
        position: Where in the file.

    Returns:
        The value anew.
    """
    if isinstance(value, str):
        return without_surrogates(value, report, position)
    if isinstance(value, dict):
        return {clean_strings(k, report, position): clean_strings(v, report, position) for k, v in value.items()}
    if isinstance(value, list):
        return [clean_strings(item, report, position) for item in value]
    return value


def _value(record: Any, name: str) -> Any:
    if "." not in name or name in record:
        return record.get(name)
    for part in name.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record
