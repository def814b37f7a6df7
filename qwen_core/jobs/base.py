"""What an `ingest` goes on from: the documents of an earlier one, whose files are not read again."""

from __future__ import annotations

from qwen_core.artifacts import Manifest, Store
from qwen_core.config import Recipe
from qwen_core.errors import ArtifactError


def base_of(recipe: Recipe, store: Store) -> Manifest | None:
    """Find the earlier corpus.

    Args:
        recipe: Its `ingest.base` is a run key, or the URI of an ingest's manifest.
        store: Where it lies.

    Returns:
        The manifest of its `ingest`, or `None` where the recipe names none.

    Raises:
        ArtifactError: There is no such run, or it has not ingested anything.
    """
    named = recipe.ingest.base
    if named is None:
        return None
    if named.endswith(".json"):
        return store.load(named)
    found = store.of_run(named).get("ingest")
    if found is None:
        raise ArtifactError(
            f"ingest.base is '{named}', but no run of this key has ingested anything in {store.root}. "
            f"Give the run key of an earlier run, or the URI of its ingest manifest"
        )
    return found


def base_hash(recipe: Recipe, store: Store) -> dict[str, str]:
    """Tell the earlier corpus's part of a fingerprint.

    Args:
        recipe: See `base_of`.
        store: Where it lies.

    Returns:
        Its fingerprint by the name `base`; empty where there is none.
    """
    found = base_of(recipe, store)
    return {"base": found.fingerprint} if found else {}
