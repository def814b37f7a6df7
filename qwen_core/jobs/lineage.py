"""From a registered model, or a manifest, back to all that it was made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwen_core.artifacts import Manifest, Store
from qwen_core.errors import ArtifactError

if TYPE_CHECKING:  # it loads MLflow, which Ray's workers need not
    from qwen_core.tracking.registry import Registered

HELDOUT_FILE = "heldout.parquet"
"""Texts of the held-out documents, in an artifact of `pack`."""


def lineage_of(store: Store, manifest: Manifest) -> dict[str, Manifest]:
    """Walk from a manifest to those of its inputs, and on.

    Args:
        store: Where they lie.
        manifest: Where to begin.

    Returns:
        Manifests by stage word, its own too; what was deleted since is left out.
    """
    found: dict[str, Manifest] = {}
    waiting = [manifest]
    while waiting:
        one = waiting.pop()
        found[one.stage] = one
        for stage, uri in one.inputs.items():
            if stage in found:
                continue
            try:
                waiting.append(store.load(uri))
            except ArtifactError:
                continue
    return found


def lineage_of_version(store: Store, registered: Registered | None) -> dict[str, Manifest]:
    """Walk from a version of the registry to the artifacts that it was made of.

    Args:
        store: Where they lie.
        registered: The version; its tag `model_fingerprint` names its model.

    Returns:
        Manifests by stage word; empty where there is no version, or its model is not in this store.
    """
    fingerprint = registered.tags.get("model_fingerprint") if registered else None
    made = store.find("dpo", fingerprint) if fingerprint else None
    return lineage_of(store, made) if made else {}
