"""What the stages of a corpus do alike: find its files, tell of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qwen_core.artifacts import Manifest, Outcome
from qwen_core.data import tally
from qwen_core.filesystem import open_filesystem
from qwen_core.jobs.context import Context
from qwen_core.jobs.parts import is_own
from qwen_core.parts import Part, parts_of, write_part_list
from qwen_core.tracking.corpus_figures import log_corpus


def document_files(manifest: Manifest) -> list[str]:
    """List the Parquet files of a corpus, in order.

    Args:
        manifest: Of `ingest`, `filter` or `dedup`.

    Returns:
        URIs; files without a document are left out.
    """
    return [part.uri for part in parts_of(manifest) if part.rows]


def write_arrow(table: pa.Table, uri: str) -> None:
    """Write an Arrow IPC file, which readers map into memory.

    Args:
        table: The rows.
        uri: Local path or object store URI.
    """
    filesystem, path = open_filesystem(uri)
    filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
    with filesystem.open_output_stream(path) as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)


def corpus_outcome(context: Context, parts: Sequence[Part], came: int | None = None) -> Outcome:
    """Add up what the parts tell, list them beside the manifest, and log the funnel, samples and histograms.

    Args:
        context: The stage's.
        parts: All parts of the corpus, in order; those of an earlier stage are taken over, and count as kept.
        came: Documents that the stage was given; `None` where it is the first.

    Returns:
        The outcome of a corpus stage.
    """
    total = tally.merge(_tally_of(context, part) for part in parts)
    funnel = total["funnel"]
    write_part_list(context.store, context.attempt.data_uri, parts)
    rows = sum(part.rows for part in parts)
    text_bytes = tally.kept_bytes(funnel)
    log_corpus(context.run, context.stage.name, total, tally.BINS)
    return Outcome(
        rows=rows,
        columns=_columns_of(parts),
        drops=tally.drops(funnel),
        metrics={"text_bytes": float(text_bytes), "parts": float(len(parts))}
        | ({"kept_ratio": rows / max(1, came)} if came is not None else {}),
        details={
            "by_language": tally.kept(funnel, "language"),
            "by_source": tally.kept(funnel, "source"),
            "text_bytes": text_bytes,
            **total,
        },
        shared_bytes=sum({part.uri: part.bytes for part in parts}.values()),
    )


def _tally_of(context: Context, part: Part) -> Mapping[str, Any]:
    """Tell a part's counts; of one that was taken over from an earlier stage only what it holds."""
    if is_own(context, part):
        return part.told
    return tally.of_kept(part.told.get("kept", []))


def _columns_of(parts: Sequence[Part]) -> dict[str, str]:
    if not parts:
        return {}
    filesystem, path = open_filesystem(parts[0].uri)
    with filesystem.open_input_file(path) as file:
        return {field.name: str(field.type) for field in pq.read_schema(file)}
