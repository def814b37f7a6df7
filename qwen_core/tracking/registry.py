"""The model registry: versions with their tags, and the two aliases `challenger` and `champion`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from qwen_core.errors import InputError
from qwen_core.tracking.runs import StageRun

CHALLENGER = "challenger"
CHAMPION = "champion"
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the second is what MLflow says of a missing alias


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
    run: StageRun,
    name: str,
    artifacts: Mapping[str, str],
    served_model: Path,
    requirement: str,
    tags: Mapping[str, str],
) -> Registered:
    """Log a model folder to a run and make it the registry's next version, with the alias `challenger`.

    A run has one version: where an attempt was killed behind it, the next one finds it.

    Args:
        run: The run that the model belongs to.
        name: The registered model.
        artifacts: Local files and folders to lay with it; `model` is the Hugging Face folder.
        served_model: Source file with the `mlflow.pyfunc` model that answers for the folder.
        requirement: What pip installs to serve it.
        tags: Tags of the version.

    Returns:
        The new version.
    """
    found = [one for one in run.client.search_model_versions(f"run_id='{run.run_id}'") if one.name == name]
    if found:
        version = str(max(int(one.version) for one in found))
        set_version_tags(run.tracking_uri, Registered(name, version, {}), tags)
        return Registered(name, version, dict(tags))
    mlflow.set_tracking_uri(run.tracking_uri)
    with mlflow.start_run(run_id=run.run_id):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(served_model),
            artifacts=dict(artifacts),
            pip_requirements=[requirement],
        )
    client = run.client
    made = mlflow.register_model(logged.model_uri, name, tags=dict(tags))
    client.set_registered_model_alias(name, CHALLENGER, made.version)
    return Registered(name, str(made.version), dict(tags))


def set_version_tags(tracking_uri: str, registered: Registered, tags: Mapping[str, str]) -> None:
    """Set tags of a version.

    Args:
        tracking_uri: MLflow server or database.
        registered: The version.
        tags: Values by name.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    for name, value in tags.items():
        client.set_model_version_tag(registered.name, registered.version, name, value)


def describe_version(tracking_uri: str, registered: Registered, card: str, notes: str) -> None:
    """Describe a version by its card; the model's own description is the card of the version that came last.

    Args:
        tracking_uri: MLflow server or database.
        registered: The version.
        card: Markdown; the registry's page renders it.
        notes: What changed, Markdown; stands above the card.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    body = card.partition("\n---\n")[2] if card.startswith("---\n") else card  # front matter is for files
    client.update_model_version(registered.name, registered.version, f"{notes.strip()}\n\n{body.strip()}\n")
    client.update_registered_model(registered.name, body.strip())


def find_version(tracking_uri: str, name: str, version: str) -> Registered:
    """Look up a version by its number.

    Args:
        tracking_uri: MLflow server or database.
        name: The registered model.
        version: Its number.

    Returns:
        The version.

    Raises:
        InputError: There is no such model, or no such version; those that exist are named.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    try:
        found: ModelVersion = client.get_model_version(name, str(version))
    except mlflow.MlflowException as error:
        if error.error_code not in _MISSING:
            raise
        known = ", ".join(str(one.version) for one in versions(tracking_uri, name)[:10])
        told = f"it has the versions {known}" if known else "the registry knows no such model"
        raise InputError(f"there is no version {version} of '{name}' in MLflow's registry: {told}") from error
    return Registered(name, str(found.version), dict(found.tags))


def versions(tracking_uri: str, name: str) -> list[Registered]:
    """List a model's versions.

    Args:
        tracking_uri: MLflow server or database.
        name: The registered model; one that does not exist has none.

    Returns:
        The newest first.
    """
    quoted = name.replace("'", "\\'")
    found = MlflowClient(tracking_uri=tracking_uri).search_model_versions(f"name='{quoted}'")
    ordered = sorted(found, key=lambda one: -int(one.version))
    return [Registered(name, str(one.version), dict(one.tags)) for one in ordered]


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
    except mlflow.MlflowException as error:
        if error.error_code not in _MISSING:  # a server that does not answer is no reason to promote
            raise
        return None
    return Registered(name, str(found.version), dict(found.tags))
