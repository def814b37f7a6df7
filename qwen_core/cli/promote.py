"""`qwen-core promote` and `qwen-core rollback`: which version of a model is champion."""

from __future__ import annotations

import getpass
import json
import os
from typing import Any

import click

from qwen_core.cli.options import home_option
from qwen_core.platform import Platform

_why_option = click.option("--why", default=None, metavar="TEXT", help="The reason, kept in the registry's history.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
_uri_option = click.option(
    "--tracking-uri",
    default=None,
    envvar="MLFLOW_TRACKING_URI",
    help="MLflow server or database [default: the platform's].",
)


@click.command()
@click.argument("name")
@click.argument("version")
@_why_option
@click.option("--force", is_flag=True, help="Also a version that the gate refused.")
@_json_option
@_uri_option
@home_option
def promote(
    name: str, version: str, why: str | None, force: bool, as_json: bool, tracking_uri: str | None, home: str | None
) -> None:
    """Make VERSION of the registered model NAME champion. Done twice, it is done once.

    \b
    Examples:
      qwen-core promote qwen-core-demo 7
      qwen-core promote qwen-core-demo 7 --force --why "better at what our users ask"
    """
    from qwen_core.jobs.promote import promoted  # loads MLflow

    _tell(promoted(_tracking_uri(tracking_uri, home), name, version, _who(), why, force), as_json)


@click.command()
@click.argument("name")
@click.option("--to", default=None, metavar="VERSION", help="Go back to this version [default: the champion before].")
@_why_option
@_json_option
@_uri_option
@home_option
def rollback(
    name: str, to: str | None, why: str | None, as_json: bool, tracking_uri: str | None, home: str | None
) -> None:
    """Give the alias champion of the registered model NAME back to the version that had it before.

    Nothing is deleted. Done twice, it goes back twice.

    \b
    Examples:
      qwen-core rollback qwen-core-demo
      qwen-core rollback qwen-core-demo --to 3 --why "version 5 is rude"
    """
    from qwen_core.jobs.promote import rolled_back

    _tell(rolled_back(_tracking_uri(tracking_uri, home), name, to, _who(), why), as_json)


def _tell(result: dict[str, Any], as_json: bool) -> None:
    from qwen_core.jobs.promote import told

    click.echo(json.dumps(result, ensure_ascii=False, indent=1) if as_json else told(result))


def _tracking_uri(given: str | None, home: str | None) -> str:
    if given:
        return given
    platform = Platform(home)
    platform.prepare_local()
    return platform.tracking_uri


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"
