"""Parts: slices of a corpus, each committed by itself and shared by every run that needs the same one.

    <root>/<stage>/parts/<fingerprint>-<attempt>.parquet    the rows; nobody knows of them until the commit
    <root>/<stage>/parts/<fingerprint>.json                 the commit: where the rows lie, counts

A part's fingerprint hashes what decides its content: the stage, its settings, and the part or the files that it was
made of. So a stage that was killed goes on where it stopped, and a corpus that has grown is worked on only where it
is new. The artifact of a corpus stage lists its parts in `parts.jsonl`.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from qwen_core.artifacts import Manifest, Store
from qwen_core.errors import ArtifactError
from qwen_core.filesystem import open_filesystem

LIST = "parts.jsonl"
_LISTED = ("files", "kept")  # of what a part tells; the rest is added up in the manifest
_ROWS_AT_ONCE = 4096
_READERS = 16  # small files, each a round trip on an object store


class Part(BaseModel):
    """A committed part.

    Attributes:
        fingerprint: Of all that decides its content.
        uri: File of the rows.
        rows: How many.
        bytes: Size of the file.
        text_bytes: UTF-8 bytes of the documents' texts, where the rows are documents.
        dropped: File that names each dropped document and its reason; empty where none was.
        told: Counts and whatever else the stage knows of it, as plain JSON.
    """

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    uri: str
    rows: int
    bytes: int
    text_bytes: int = 0
    dropped: str = ""
    told: dict[str, Any]


class PartStore:
    """The parts of one stage; cheap to pickle."""

    def __init__(self, root: str, stage: str) -> None:
        self.root, self.stage = root, stage

    def target(self, fingerprint: str) -> str:
        """Name a new file of a part, never the same twice.

        Args:
            fingerprint: The part's.

        Returns:
            URI to write to; its folder exists.
        """
        store = Store(self.root)
        uri = f"{self.root}/{self.stage}/parts/{fingerprint}-{uuid.uuid4().hex[:8]}.parquet"
        store.make_folder_of(uri)
        return uri

    def commit(self, part: Part) -> None:
        """Make a part known, now that its file is written.

        Args:
            part: The part.
        """
        Store(self.root).write(self._commit_uri(part.fingerprint), part.model_dump_json())

    def find(self, fingerprints: Iterable[str]) -> dict[str, Part]:
        """Look up parts.

        Args:
            fingerprints: Which.

        Returns:
            Those that are committed and whose file is there, by fingerprint.
        """
        store = Store(self.root)
        with ThreadPoolExecutor(_READERS) as pool:
            texts = pool.map(lambda fingerprint: store.read(self._commit_uri(fingerprint)), fingerprints)
            parts = [Part.model_validate_json(text) for text in texts if text is not None]
        sizes = store.sizes([part.uri for part in parts])
        return {part.fingerprint: part for part, size in zip(parts, sizes, strict=True) if size == part.bytes}

    def discard(self, uri: str) -> None:
        """Delete the file of a part that could not be finished.

        Args:
            uri: As `target` gave it.
        """
        store = Store(self.root)
        with contextlib.suppress(OSError):
            store.filesystem.delete_file(store.path_of(uri))

    def _commit_uri(self, fingerprint: str) -> str:
        return f"{self.root}/{self.stage}/parts/{fingerprint}.json"


def read_rows(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows of a part; of an object store only what the columns take, and no copy stays on this machine.

    Args:
        uri: The part's file.
        columns: Names; all where they are left out.

    Returns:
        The rows.
    """
    filesystem, path = open_filesystem(uri)
    with filesystem.open_input_file(path) as file:
        return pq.read_table(file, columns=list(columns) if columns is not None else None)


def row_batches(uri: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Read a part a batch at a time: one large packed file makes one large part.

    Args:
        uri: Of its Parquet file.
        columns: Which; all of them by default.

    Yields:
        Tables of some thousand rows, at least one.
    """
    filesystem, path = open_filesystem(uri)
    with filesystem.open_input_file(path) as opened, pq.ParquetFile(opened) as file:
        schema = file.schema_arrow
        wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        if not file.metadata.num_rows:
            yield wanted.empty_table()
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
            yield pa.Table.from_batches([batch]).select(wanted.names)


def write_part_list(store: Store, data_uri: str, parts: Sequence[Part]) -> None:
    """List an artifact's parts, in the corpus's order.

    Args:
        store: Where the artifact lies.
        data_uri: Folder of the attempt.
        parts: All of them.
    """
    light = [part.model_copy(update={"told": {k: part.told[k] for k in _LISTED if k in part.told}}) for part in parts]
    store.write(f"{data_uri}/{LIST}", "".join(part.model_dump_json() + "\n" for part in light))


def parts_of(manifest: Manifest) -> list[Part]:
    """Read the list of an artifact's parts.

    Args:
        manifest: Of a corpus stage.

    Returns:
        Parts in the corpus's order.

    Raises:
        ArtifactError: The artifact has no such list.
    """
    uri = manifest.path(LIST)
    filesystem, path = open_filesystem(uri)
    try:
        with filesystem.open_input_file(path) as file:
            lines = bytes(file.read()).decode().splitlines()
    except FileNotFoundError as error:
        raise ArtifactError(
            f"no {LIST} in {manifest.data_uri}: the artifact was deleted, or is none of a corpus"
        ) from error
    return [Part.model_validate_json(line) for line in lines]
