"""Nested settings as dotted names, as MLflow's params and comparisons want them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_MOST_CHARS = 500  # of a param; MLflow's own limit is 6,000, and longer texts belong into the recipe artifact


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Turn a nested mapping into dotted names and leaf values.

    Args:
        tree: Plain JSON.
        prefix: Before each name.

    Yields:
        Name and value; an empty mapping is a leaf.
    """
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def param_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Write values as params.

    Args:
        values: By dotted name.

    Returns:
        Their texts; long ones are cut.
    """
    return {name: str(value)[:_MOST_CHARS] for name, value in values.items()}


def news_of(texts: Mapping[str, str], known: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Tell what a run that has params already is still to be told; MLflow never lets a param change.

    Args:
        texts: Params.
        known: Those of the run.

    Returns:
        Params that it lacks, and tags `changed.<name>` for those that differ.
    """
    new = {name: text for name, text in texts.items() if name not in known}
    return new, {f"changed.{name}": text for name, text in texts.items() if known.get(name, text) != text}
