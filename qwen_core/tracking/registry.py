"""The model registry: versions, and the two aliases `challenger` and `champion`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import RestException
from mlflow.tracking import MlflowClient

from qwen_core.tracking.runs import StageRun

CHALLENGER = "challenger"
CHAMPION = "champion"


@dataclass(frozen=True)
class Registered:
    """A version in the registry.

    Attributes:
        name: The registered model.
        version: Its version's number.
        tags: Tags of the version, with figures as texts.
    """

    name: str
    version: str
    tags: dict[str, str]


def register_model(
    run: StageRun, name: str, model_folder: str, served_model: Path, requirement: str, tags: Mapping[str, str]
) -> Registered:
    """Log a model folder to a run and make it the registry's next version, with the alias `challenger`.

    Args:
        run: The run that the model belongs to.
        name: The registered model.
        model_folder: Local Hugging Face folder.
        served_model: Source file with the `mlflow.pyfunc` model that answers for the folder.
        requirement: What pip installs to serve it.
        tags: Tags of the version.

    Returns:
        The new version.
    """
    mlflow.set_tracking_uri(run.tracking_uri)
    with mlflow.start_run(run_id=run.run_id):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(served_model),
            artifacts={"model": model_folder},
            pip_requirements=[requirement],
        )
    client = run.client
    version = mlflow.register_model(logged.model_uri, name, tags=dict(tags))
    client.set_registered_model_alias(name, CHALLENGER, version.version)
    return Registered(name, str(version.version), dict(tags))


def promote(tracking_uri: str, registered: Registered) -> None:
    """Give a version the alias `champion`.

    Args:
        tracking_uri: MLflow server or database.
        registered: The version.
    """
    MlflowClient(tracking_uri=tracking_uri).set_registered_model_alias(registered.name, CHAMPION, registered.version)


def find_champion(tracking_uri: str, name: str) -> Registered | None:
    """Look up the version that has the alias `champion`.

    Args:
        tracking_uri: MLflow server or database.
        name: The registered model.

    Returns:
        The version, or `None` where there is none.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    try:
        found: ModelVersion = client.get_model_version_by_alias(name, CHAMPION)
    except (RestException, mlflow.MlflowException):
        return None
    return Registered(name, str(found.version), dict(found.tags))
