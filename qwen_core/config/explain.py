"""What every key of a recipe means, read off the models: `qwen-core recipe --explain` and docs/recipe.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qwen_core.config.recipe import Recipe

_BOUNDS = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))


@dataclass(frozen=True)
class Key:
    """A key of the recipe.

    Attributes:
        path: Dotted, as an override names it.
        kind: Type and bounds.
        default: As YAML's one-line form.
        description: What it is for; empty where the name says it.
    """

    path: str
    kind: str
    default: str
    description: str


def keys() -> list[Key]:
    """List every key of a recipe, in order.

    Returns:
        The keys.
    """
    schema = Recipe.model_json_schema()
    return list(_walk(schema, schema["$defs"], Recipe().model_dump(mode="json"), ""))


def to_markdown() -> str:
    """Write the page docs/recipe.md.

    Returns:
        Markdown, a table for each section.
    """
    parts = [_HEAD]
    section = None
    for key in keys():
        name = key.path.partition(".")[0] if "." in key.path else ""
        if name != section:
            section = name
            title = f"## `{name}`\n\n{_first_line(name)}" if name else "## The recipe itself"
            parts.append(f"\n{title}\n\n| key | value | default | meaning |\n|---|---|---|---|\n")
        parts.append(f"| `{key.path}` | {key.kind} | `{key.default}` | {key.description} |\n")
    return "".join(parts)


def _walk(node: Mapping[str, Any], known: Mapping[str, Any], defaults: Any, prefix: str) -> Iterator[Key]:
    for name, field in node["properties"].items():
        path = prefix + name
        target = known.get(field.get("$ref", "").rpartition("/")[2])
        if target is not None:
            yield from _walk(target, known, defaults[name], f"{path}.")
        else:
            default = json.dumps(defaults[name], ensure_ascii=False)
            yield Key(path, _kind(field), default, field.get("description", ""))


def _kind(field: Mapping[str, Any]) -> str:
    """Put a JSON schema's type and bounds into words."""
    if "anyOf" in field:
        return " or ".join(_kind(choice) for choice in field["anyOf"])
    if "$ref" in field:
        return f"`{field['$ref'].rpartition('/')[2]}`"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    if field.get("type") == "array":
        return f"list of {_kind(field['items'])}s"
    if field.get("type") == "object":
        return f"mapping to {_kind(field['additionalProperties'])}"
    bounds = " and ".join(f"{sign} {field[bound]:g}" for bound, sign in _BOUNDS if bound in field)
    return f"{field['type']} {bounds}".strip()


def _first_line(section: str) -> str:
    model: Any = Recipe.model_fields[section].annotation
    return (model.__doc__ or "").strip().partition("\n")[0]


_HEAD = """# Every key of a recipe

A recipe is one YAML file; a key that it leaves out has its default. `qwen-core recipe demo > mine.yaml` writes one to
start from, `qwen-core recipe mine.yaml` checks it and prints it resolved, and `--set pretrain.max_steps=500` overrides
one key. This page is made by `qwen-core recipe --explain`.
"""
