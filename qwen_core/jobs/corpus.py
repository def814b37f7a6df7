"""What the jobs over documents do alike: find the files of a corpus, write files of rows."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import ray
import ray.data

from qwen_core.artifacts import Manifest
from qwen_core.jobs.context import Context

Part = dict[str, Any]


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


def map_parts(
    context: Context,
    parts: Sequence[Part],
    work: Callable[[Part, Any], dict[str, Any]],
    options: Any,
    unit: str = "files",
) -> list[dict[str, Any]]:
    """Run a function over parts of a corpus as one Ray Data pass: each part in, one file written, counts out.

    The rows stay in the workers; what comes back is small.

    Args:
        context: The stage's, for progress.
        parts: Plain mappings with `index`.
        work: Called with a part and the options; its answer is told back.
        options: The same for every part, stored once in the cluster.
        unit: What a part is, for the progress line.

    Returns:
        The answers, in the order of the parts.
    """
    shared = ray.put(options)

    # As bytes, since Arrow would bring the mappings of all parts into one struct type.
    def apply(row: dict[str, Any]) -> dict[str, Any]:
        part = pickle.loads(row["part"])
        return {"index": part["index"], "told": pickle.dumps(work(part, ray.get(shared)))}

    items = [{"part": pickle.dumps(part)} for part in parts]
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map(apply, num_cpus=1)
    told: dict[int, dict[str, Any]] = {}
    context.progress(0, len(parts), unit)
    for row in dataset.iter_rows():
        told[row["index"]] = pickle.loads(row["told"])
        context.progress(len(told), len(parts), unit)
    return [told[index] for index in sorted(told)]


def write_documents(table: pa.Table, uri: str) -> dict[str, Any]:
    """Write documents as one Parquet file.

    Args:
        table: The documents.
        uri: Local path or object store URI.

    Returns:
        Counts: `rows`, `text_bytes`, `by_language`, `by_source`.
    """
    filesystem, path = pafs.FileSystem.from_uri(uri) if "://" in uri else (pafs.LocalFileSystem(), uri)
    pq.write_table(table, path, filesystem=filesystem, compression="zstd")
    return {
        "rows": table.num_rows,
        "text_bytes": int(pc.sum(pc.binary_length(table["text"])).as_py() or 0),
        "by_language": _tally(table["language"]),
        "by_source": _tally(table["source"]),
    }


def add_up(told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add up the counts of all parts.

    Args:
        told: Numbers and mappings of numbers, by name; other values are left out.

    Returns:
        The sums; mappings sorted by falling count.
    """
    sums: dict[str, Any] = {
        "rows": 0,
        "text_bytes": 0,
        "drops": Counter(),
        "by_language": Counter(),
        "by_source": Counter(),
    }
    for part in told:
        for name, value in sums.items():
            if isinstance(value, Counter):
                value.update({k: v for k, v in (part.get(name) or {}).items() if v})
            else:
                sums[name] = value + part.get(name, 0)
    return {n: dict(v.most_common()) if isinstance(v, Counter) else v for n, v in sums.items()}


def _tally(column: pa.ChunkedArray) -> dict[str, int]:
    return {str(row["values"]): row["counts"] for row in pc.value_counts(column).to_pylist()}
