"""Working through a corpus part by part, as one Ray Data pass: part in, file written and committed, counts out.

The rows stay in the workers; what comes back is small. Parts that are committed already are not worked on again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from qwen_core.data import tally
from qwen_core.errors import ArtifactError, QwenCoreError
from qwen_core.filesystem import open_filesystem
from qwen_core.jobs.context import Context
from qwen_core.parts import Part, PartStore

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Item:
    """One part to be made.

    Attributes:
        fingerprint: Of all that decides the part's content.
        size: Bytes that are read for it: for progress.
        given: What `work` gets.
    """

    fingerprint: str
    size: int
    given: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """What the work on one part gives.

    Attributes:
        tables: The part's rows, at least one table, though it be empty.
        told: Counts and the like, plain JSON; complete when the last table is taken.
        dropped: `id`, `reason` and more of each document that was dropped; complete when the last table is taken.
    """

    tables: Iterable[pa.Table]
    told: dict[str, Any] = field(default_factory=dict)
    dropped: list[pa.Table] = field(default_factory=list)


Work = Callable[[dict[str, Any], Any], Made]
"""Called with an item's `given` and the options."""


def part_fingerprint(context: Context, **decides: Any) -> str:
    """Hash what decides a part's content.

    Args:
        context: The stage's: its name and version count.
        **decides: All else, as plain JSON.

    Returns:
        Sixteen hexadecimal digits.
    """
    told = {"stage": context.stage.name, "version": context.stage.version, **decides}
    return hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def is_own(context: Context, part: Part) -> bool:
    """Tell whether a part is of this stage, or was taken over from an earlier one."""
    return f"/{context.stage.name}/parts/" in part.uri


def make_parts(context: Context, items: Sequence[Item], work: Work, options: Any, what: str = "parts") -> list[Part]:
    """Make the parts that are not there yet.

    Args:
        context: The stage's, for places and progress.
        items: The parts, in the corpus's order.
        work: Makes one part.
        options: The same for every part, stored once in the cluster.
        what: Their name in progress lines.

    Returns:
        All parts, in the order of the items.

    Raises:
        ArtifactError: A disk is full.
        QwenCoreError: As `work` raised it.
    """
    places = PartStore(context.store.root, context.stage.name)
    made = places.find({item.fingerprint for item in items})
    missing = {item.fingerprint: item for item in items if item.fingerprint not in made}
    if made:
        print(f"[{context.stage.name}] {len(made)} of {len(items)} {what} are there already", flush=True)
    progress = Progress(context, what, len(items), sum(item.size for item in items))
    progress.start(len(items) - len(missing), sum(item.size for item in items if item.fingerprint in made))
    shared = ray.put(options)
    given = [(fingerprint, item.given) for fingerprint, item in missing.items()]
    for answer in _answers(given, lambda one: _make(places, one, work, ray.get(shared))):
        part = Part.model_validate(answer)
        made[part.fingerprint] = part
        progress.advance(missing[part.fingerprint].size)
    return [made[item.fingerprint] for item in items]


def write_tables(tables: Iterable[pa.Table], uri: str) -> tuple[int, int]:
    """Write one Parquet file; memory holds one table at a time.

    Args:
        tables: Rows of one schema, at least one table.
        uri: Local path or object store URI.

    Returns:
        Rows, and the file's size in bytes.
    """
    filesystem, path = open_filesystem(uri)
    rows, writer = 0, None
    # The writer is closed before its file, whatever happens: else it complains of the file when it is collected.
    with filesystem.open_output_stream(path, compression=None) as out, ExitStack() as opened:
        for table in tables:
            writer = writer or opened.enter_context(pq.ParquetWriter(out, table.schema, compression="zstd"))
            writer.write_table(table)
            rows += table.num_rows
        if writer is None:
            raise ValueError(f"no table to write to {uri}")
    return rows, int(filesystem.get_file_info(path).size)


class Progress:
    """Progress lines of a pass: parts done, megabytes a second, seconds left."""

    def __init__(self, context: Context, unit: str, parts: int, size: int) -> None:
        self._context, self._unit, self._parts, self._size = context, unit, parts, size
        self._done = self._done_bytes = self._first_bytes = 0
        self._started = time.monotonic()

    def start(self, parts: int, size: int) -> None:
        """Tell what is there before the work begins.

        Args:
            parts: Parts.
            size: Bytes read for them in their time.
        """
        self._done, self._done_bytes, self._first_bytes = parts, size, size
        self._started = time.monotonic()
        self._context.progress(parts, self._parts, self._unit)

    def advance(self, size: int) -> None:
        """Tell that one more part is made.

        Args:
            size: Bytes that were read for it.
        """
        self._done += 1
        self._done_bytes += size
        rate = (self._done_bytes - self._first_bytes) / max(1e-3, time.monotonic() - self._started)
        left = (self._size - self._done_bytes) / max(1.0, rate)
        self._context.progress(
            self._done, self._parts, self._unit, megabytes_per_second=round(rate / 1e6, 2), seconds_left=round(left)
        )


def _answers(given: Sequence[Any], answer: Callable[[Any], Any]) -> Iterator[Any]:
    """Ask Ray Data for an answer to each, as they come."""
    if not given:
        return

    # As bytes, since Arrow would bring all mappings into one struct type.
    def apply(row: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return {"told": pickle.dumps(answer(pickle.loads(row["given"])))}
        except QwenCoreError as error:  # as a value: raised, Ray would print its own frames around it
            return {"told": pickle.dumps(error)}

    rows = [{"given": pickle.dumps(one)} for one in given]
    for row in ray.data.from_items(rows, override_num_blocks=len(rows)).map(apply, num_cpus=1).iter_rows():
        told = pickle.loads(row["told"])
        if isinstance(told, QwenCoreError):
            raise told
        yield told


def _make(places: PartStore, one: tuple[str, dict[str, Any]], work: Work, options: Any) -> dict[str, Any]:
    """Make, write and commit one part, in a worker."""
    fingerprint, given = one
    targets = [places.target(fingerprint) for _ in range(2)]
    try:
        part = _written(fingerprint, targets, work(given, options))
        places.commit(part)
    except BaseException as error:
        for uri in targets:
            places.discard(uri)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise ArtifactError(
                f"no space left for {targets[0]}: make room and run the same command again; "
                f"the parts that are finished are kept"
            ) from error
        raise
    return part.model_dump()


def _written(fingerprint: str, targets: Sequence[str], made: Made) -> Part:
    """Write a part's files."""
    rows, size = write_tables(made.tables, targets[0])
    told = dict(made.told)
    if "funnel" in told:
        told["kept"] = tally.kept_rows(told["funnel"])
    has_dropped = any(table.num_rows for table in made.dropped)
    if has_dropped:
        write_tables(made.dropped, targets[1])
    return Part(
        fingerprint=fingerprint,
        uri=targets[0],
        rows=rows,
        bytes=size,
        text_bytes=sum(row[3] for row in told.get("kept", ())),
        dropped=targets[1] if has_dropped else "",
        told=told,
    )
