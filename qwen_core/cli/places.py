"""Where artifacts and MLflow lie, for commands that look at both: the platform's, or those of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from qwen_core.artifacts import Store
from qwen_core.cli.options import home_option
from qwen_core.errors import MissingDependencyError, PlatformError, QwenCoreError
from qwen_core.platform import Platform

_REFUSED_SECONDS = "10"


@dataclass(frozen=True)
class Places:
    """A store of artifacts, and an MLflow.

    Attributes:
        store: Where artifacts lie.
        tracking_uri: MLflow server or database.
    """

    store: Store
    tracking_uri: str


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--home`, `--store` and `--tracking-uri` to a command.

    Args:
        command: Takes `home`, `store_root` and `tracking_uri`.

    Returns:
        The same, decorated.
    """
    for option in (
        home_option,
        click.option(
            "--tracking-uri",
            default=None,
            envvar="MLFLOW_TRACKING_URI",
            help="MLflow: address, or sqlite:///FILE [default: the platform's].",
        ),
        click.option(
            "--store",
            "store_root",
            default=None,
            envvar="QWEN_CORE_STORE",
            metavar="URI",
            help="Root of the artifacts, also s3://BUCKET/PREFIX [default: the platform's].",
        ),
    ):
        command = option(command)
    return command


def places_of(home: str | None, store_root: str | None, tracking_uri: str | None) -> Places:
    """Settle where to look.

    Args:
        home: State folder of the platform.
        store_root: Given root of the artifacts.
        tracking_uri: Given MLflow.

    Returns:
        The places; what was not given is the platform's.
    """
    platform = Platform(home)
    return Places(Store(store_root or platform.store_root), tracking_uri or platform.tracking_uri)


@contextmanager
def mlflow_at(tracking_uri: str) -> Iterator[None]:
    """Turn what MLflow raises into errors that say what to do.

    Args:
        tracking_uri: Where it is asked.

    Yields:
        Nothing; MLflow is loaded inside.

    Raises:
        MissingDependencyError: MLflow is not installed.
        PlatformError: It does not answer, or refuses.
    """
    import os

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # else a person waits for minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", _REFUSED_SECONDS)
    try:
        from mlflow.exceptions import MlflowException
    except ImportError as fault:
        raise MissingDependencyError(f"{fault.name} is not installed: pip install 'qwen-core[train]'") from fault
    try:
        yield
    except QwenCoreError:
        raise
    except MlflowException as error:
        told = str(error).partition("\n")[0][:300]
        raise PlatformError(
            f"MLflow does not answer ({told}). Start it with 'qwen-core up', or give another one: --tracking-uri"
        ) from error
