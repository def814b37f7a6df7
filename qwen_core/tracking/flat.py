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
