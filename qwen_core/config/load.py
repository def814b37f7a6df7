"""Reading a recipe: bundled name or YAML file, dotted overrides, all faults in one message."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from qwen_core.config.recipe import Recipe
from qwen_core.errors import RecipeError


def bundled_recipes() -> list[str]:
    """List the names of the recipes that come with the package, sorted."""
    folder = resources.files("qwen_core") / "recipes"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(recipe: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply overrides to it.

    Args:
        recipe: The name of a bundled recipe, or the path of a YAML file.
        overrides: Texts such as `pretrain.max_steps=200`; the value is read as YAML.

    Returns:
        The checked recipe.

    Raises:
        RecipeError: It cannot be found or read, or has faults; the message lists all of them, each with its
            dotted path and, for an unknown key, the nearest one that exists.
    """
    tree = _read_yaml(recipe)
    faults = [fault for override in overrides if (fault := _apply_override(tree, override))]
    loaded = None
    try:
        loaded = Recipe.model_validate(tree)
    except ValidationError as error:
        faults += [_describe(fault) for fault in error.errors(include_url=False)]
    if loaded is None or faults:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        count = f"{len(faults)} fault" + ("s" if len(faults) != 1 else "")
        raise RecipeError(f"recipe '{recipe}' has {count}:\n{listed}")
    return loaded


def dump_recipe(recipe: Recipe) -> str:
    """Write a resolved recipe as YAML that `load_recipe` reads back to an equal one.

    Args:
        recipe: The recipe.

    Returns:
        YAML text, keys in the order of the stages.
    """
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def _read_yaml(recipe: str) -> dict[str, Any]:
    """Find a recipe's text, by bundled name or by path, and parse it to a tree."""
    if recipe in bundled_recipes():
        text = (resources.files("qwen_core") / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8")
    else:
        path = Path(recipe).expanduser()
        if not path.is_file():
            near = difflib.get_close_matches(recipe, bundled_recipes(), n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise RecipeError(
                f"recipe '{recipe}' is neither a file nor bundled{hint} Bundled: {', '.join(bundled_recipes())}"
            )
        text = path.read_text(encoding="utf-8")
    try:
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe '{recipe}' is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"recipe '{recipe}' must be a mapping of sections, got {type(tree).__name__}")
    return tree


def _apply_override(tree: dict[str, Any], override: str) -> str | None:
    """Set one dotted key in the tree; return the fault, if any, in words."""
    path, equals, text = override.partition("=")
    if not equals or not path:
        return f"override '{override}': write it as section.key=value"
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    *parents, last = path.strip().split(".")
    for parent in parents:
        branch = tree.setdefault(parent, {})
        if not isinstance(branch, dict):
            return f"override '{override}': '{parent}' is a value, not a section"
        tree = branch
    tree[last] = value
    return None


def _describe(fault: Mapping[str, Any]) -> str:
    """Put one pydantic fault into words, with its dotted path and the nearest key."""
    location = tuple(part for part in fault["loc"] if not isinstance(part, str) or "[" not in part)
    path = ".".join(str(part) for part in location) or "recipe"
    if fault["type"] == "extra_forbidden":
        known = _keys_at(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
        return f"{path}: unknown key; {hint}"
    message = fault["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    given = fault["input"]
    shown = f" (got {given!r})" if not isinstance(given, (dict, BaseModel)) else ""
    return f"{path}: {message}{shown}"


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """List the keys that are valid at a place of the recipe."""
    model: type[BaseModel] = Recipe
    for part in location:
        field = model.model_fields.get(str(part))
        candidates = _models_in(field.annotation) if field else []
        if not candidates:
            return []
        model = candidates[0]
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Find the section classes inside a field's annotation (`Ramp | None`, say)."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]
