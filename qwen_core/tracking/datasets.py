"""Artifacts and source files as MLflow's datasets, by which its pages join the runs that made and that read them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from qwen_core.artifacts import Manifest
from qwen_core.errors import ArtifactError
from qwen_core.parts import parts_of

OUTPUT = "output"
SOURCE = "source"
_MOST_SOURCES = 50  # of thousands of files the page would show nothing else; `qwen-core lineage --files` lists all
_MOST_NAME_CHARS, _MOST_DIGEST_CHARS = 500, 36
_TYPES = {
    "string": "string",
    "float": "float",
    "double": "double",
    "bool": "boolean",
    "int64": "long",
    "uint32": "integer",
}


def dataset_of(manifest: Manifest) -> dict[str, str]:
    """Describe an artifact.

    Args:
        manifest: Of the artifact.

    Returns:
        `name`, `digest`, `source_type`, `source`, `profile` and, for tables, `schema`.
    """
    profile = {
        "num_rows": manifest.rows,
        "bytes": manifest.bytes,
        "tokens": manifest.tokens,
        "run_key": manifest.run_key,
    }
    told = {
        "name": manifest.stage,
        "digest": manifest.fingerprint,
        "source_type": _scheme(manifest.uri),
        "source": json.dumps({"uri": manifest.uri}),
        "profile": json.dumps(profile | {"dropped": sum(manifest.drops.values())}),
    }
    if manifest.columns:
        columns = [
            {"type": _TYPES.get(kind, "string"), "name": name, "required": True}
            for name, kind in manifest.columns.items()
        ]
        told["schema"] = json.dumps({"mlflow_colspec": columns})
    return told


def source_datasets(manifest: Manifest) -> list[dict[str, str]]:
    """Describe what an artifact was read from, outside of the store.

    Args:
        manifest: Of the artifact.

    Returns:
        The first of its files; empty for a stage that reads artifacts alone.
    """
    files = _files(manifest)
    found = list(files.items())[:_MOST_SOURCES]
    more = len(files) - len(found)
    told = [_source(path, digest) for path, digest in found]
    if more:
        told.append(_source(f"and {more} more files", manifest.fingerprint))
    return told


def _files(manifest: Manifest) -> Mapping[str, str]:
    if manifest.stage != "ingest":
        return manifest.sources
    try:
        parts = parts_of(manifest)
    except ArtifactError:
        return manifest.sources
    return {path: digest for part in parts for path, digest in part.told.get("files", ())} or manifest.sources


def _source(path: str, digest: str) -> dict[str, str]:
    return {
        "name": path[-_MOST_NAME_CHARS:],
        "digest": (digest or "unknown")[:_MOST_DIGEST_CHARS],
        "source_type": _scheme(path),
        "source": json.dumps({"uri": path}),
    }


def _scheme(uri: str) -> str:
    return uri.split("://")[0] if "://" in uri else "local"
