"""What an `ingest` goes on from: the documents of an earlier one, whose files are not read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_core.artifacts import Manifest, Store
from qwen_core.config import Recipe
from qwen_core.errors import ArtifactError, InputError

_MADE = {"ingest": "ingested anything"}
_NOT_IN_PARTS = ("inputs", "base", "max_raw_bytes", "part_bytes")  # say what is read, not how


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
    return None if recipe.ingest.base is None else stage_of(recipe.ingest.base, "ingest.base", "ingest", store)


def stage_of(named: str, key: str, stage: str, store: Store) -> Manifest:
    """Find an earlier artifact by what a recipe calls it.

    Args:
        named: A run key, or the URI of a manifest.
        key: Of the recipe, for the message.
        stage: The word of the stage that made it.
        store: Where it lies.

    Returns:
        The manifest.

    Raises:
        ArtifactError: There is no such run or manifest, or it is of another stage.
    """
    found = store.load(named) if named.endswith(".json") else store.of_run(named).get(stage)
    if found is None or found.stage != stage:
        raise ArtifactError(
            f"{key} is '{named}', but {_told(found, stage)} in {store.root}. "
            f"Give the run key of an earlier run, or the URI of its {stage} manifest"
        )
    return found


def _told(found: Manifest | None, stage: str) -> str:
    if found is not None:
        return f"that is a manifest of '{found.stage}'"
    return f"no run of this key has {_MADE.get(stage, f'an artifact of {stage}')}"


def reading_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Take the settings that decide what a part of `ingest` holds, given its files.

    Args:
        config: The section `ingest`, as plain JSON.

    Returns:
        The section without what only says which files are read.
    """
    return {name: value for name, value in config.items() if name not in _NOT_IN_PARTS}


def check_settings(present: Mapping[str, Any], earlier: Mapping[str, Any]) -> None:
    """Refuse to put documents that were read with other settings beside new ones.

    Args:
        present: The section `ingest` of this run, as plain JSON.
        earlier: Of the corpus that is added to.

    Raises:
        InputError: They differ; the keys are named.
    """
    present, earlier = reading_settings(present), reading_settings(earlier)
    other = [name for name in present if present[name] != earlier.get(name)]
    if other:
        told = "; ".join(f"ingest.{name} is {present[name]}, and was {earlier.get(name)}" for name in other)
        raise InputError(
            f"the corpus that is added to was read with other settings: {told}. Give the same ones, or read everything "
            f"anew without a base"
        )


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
