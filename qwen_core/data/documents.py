"""The document: Arrow columns that every corpus stage shares."""

from __future__ import annotations

import hashlib

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("url", pa.string()),
        ("language", pa.string()),
        ("language_score", pa.float32()),
        ("script", pa.string()),
        ("timestamp", pa.string()),
        ("metadata", pa.string()),
    ]
)
"""`id` hashes file and position; `source` is a short name; `metadata` is JSON with source_file and source_position."""

FILTERED_SCHEMA = SCHEMA.append(pa.field("quality_score", pa.float32())).append(
    pa.field("toxicity_score", pa.float32())
)
"""What `filter` adds; a score is null where no classifier was asked."""


def document_id(path: str, position: str) -> str:
    """Name a document by where it stands, the same in every run.

    Args:
        path: The source's address.
        position: Place in it, such as a record's number and a chunk's.

    Returns:
        Sixteen hexadecimal digits.
    """
    return hashlib.blake2b(f"{path}\0{position}".encode(errors="surrogatepass"), digest_size=8).hexdigest()
