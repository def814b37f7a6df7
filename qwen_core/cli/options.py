"""Options that several commands share."""

from __future__ import annotations

import datetime
import glob
import secrets
from collections.abc import Sequence
from pathlib import Path

import click
import yaml

from qwen_core.config import bundled_recipes
from qwen_core.errors import InputError

recipe_option = click.option(
    "--recipe",
    "recipe_name",
    default="demo",
    show_default=True,
    help=f"Bundled recipe ({', '.join(bundled_recipes())}) or path of a YAML file.",
)
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one recipe key, such as pretrain.max_steps=50. Repeatable.",
)
home_option = click.option(
    "--home",
    type=click.Path(file_okay=False),
    default=None,
    envvar="QWEN_CORE_HOME",
    help="State folder of the platform [default: ./.qwen].",
)

model_option = click.option(
    "--model",
    "named",
    default=None,
    help="Folder, run key, URI of a manifest, or models:/NAME@ALIAS [default: the newest aligned model].",
)
run_model_option = click.option("--run-key", default=None, help="Take the model of this pipeline run.")


def recipe_address(name: str) -> str:
    """Make a recipe's name usable from any working directory.

    Args:
        name: A bundled name or a path.

    Returns:
        The bundled name as it is, a path made absolute.
    """
    return name if name in bundled_recipes() else str(Path(name).expanduser().absolute())


def with_inputs(overrides: Sequence[str], inputs: Sequence[str]) -> list[str]:
    """Turn `--input` paths into an override of `ingest.inputs`.

    Args:
        overrides: Overrides given so far.
        inputs: Paths, globs, object store URIs, or the words `environment` and `bundled`; a path with `{date}` is
            looked for when the date is known.

    Returns:
        All overrides; local paths made absolute, for a job runs in another folder.

    Raises:
        InputError: A local path does not exist; all missing ones are named.
    """
    if not inputs:
        return list(overrides)
    addresses, missing = [], []
    for given in inputs:
        if "://" in given or given in ("environment", "bundled"):
            addresses.append(given)
            continue
        path = Path(given).expanduser().absolute()
        found = path.exists() or "{date}" in given
        if not found and next(glob.iglob(str(path), recursive=True), None) is None:  # noqa: PTH207 - absolute
            missing.append(str(path))
        addresses.append(str(path))
    if missing:
        raise InputError(f"no such file or folder: {', '.join(missing)}. Give files, folders or globs.")
    text = yaml.safe_dump(addresses, default_flow_style=True, width=10**9, allow_unicode=True).strip()
    return [*overrides, f"ingest.inputs={text}"]


def new_run_key(recipe_name: str) -> str:
    """Make a readable key for a new pipeline run.

    Args:
        recipe_name: Its stem comes first.

    Returns:
        Such as `demo-20260102-030405-9f3a`.
    """
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"{Path(recipe_name).stem}-{now}-{secrets.token_hex(2)}"
