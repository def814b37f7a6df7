"""What the jobs over documents do alike: find the files of a corpus, write files of rows."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.fs as pafs

from qwen_core.artifacts import Manifest


def document_files(manifest: Manifest) -> list[str]:
    """List the Parquet files of a corpus, in order.

    Args:
        manifest: Of `ingest`, `filter` or `dedup`.

    Returns:
        URIs.
    """
    names = sorted(n for n in manifest.files if n.startswith("documents/") and n.endswith(".parquet"))
    return [manifest.path(name) for name in names]


def write_arrow(table: pa.Table, uri: str) -> None:
    """Write an Arrow IPC file, which readers map into memory.

    Args:
        table: The rows.
        uri: Local path or object store URI.
    """
    filesystem, path = pafs.FileSystem.from_uri(uri) if "://" in uri else (pafs.LocalFileSystem(), uri)
    filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
    with filesystem.open_output_stream(path) as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
