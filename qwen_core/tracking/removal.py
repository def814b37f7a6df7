"""Removing runs and registered versions from MLflow, or exporting them first."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from qwen_core.tracking.outbox import in_short, logger

_MISSING = "RESOURCE_DOES_NOT_EXIST"
_MOST_AT_ONCE = 200
_PURGE_SECONDS = 600


def drop_version(tracking_uri: str, title: str) -> None:
    """Delete a registered version and the logged model that it names; one that is gone already is fine.

    Args:
        tracking_uri: MLflow server or database.
        title: Such as `demo/3`.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    name, _, version = title.rpartition("/")
    try:
        model_id = client.get_model_version(name, version).model_id
        client.delete_model_version(name, version)
        if model_id:
            place = client.get_logged_model(model_id).artifact_location
            client.delete_logged_model(model_id)
            _delete_artifacts(place, tracking_uri)
    except MlflowException as error:
        if error.error_code != _MISSING:
            raise


def export_runs(tracking_uri: str, run_ids: Sequence[str], folder: Path) -> None:
    """Write down runs: params, tags, every point of every curve, and their artifacts.

    Args:
        tracking_uri: MLflow server or database.
        run_ids: Which.
        folder: Local; each run gets `<run id>/run.json` and `artifacts/` in it.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    for run_id in run_ids:
        place = folder / run_id
        if (place / "run.json").exists():
            continue
        run = client.get_run(run_id)
        (place / "artifacts").mkdir(parents=True, exist_ok=True)
        for artifact in client.list_artifacts(run_id):
            client.download_artifacts(run_id, artifact.path, str(place / "artifacts"))
        told: dict[str, Any] = run.to_dictionary()
        told["history"] = {name: list(_points(client, run_id, name)) for name in run.data.metrics}
        (place / "run.json").write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")


def _points(client: MlflowClient, run_id: str, name: str) -> Iterator[tuple[int, float, int]]:
    yield from ((point.step, point.value, point.timestamp) for point in client.get_metric_history(run_id, name))


def remove_runs(tracking_uri: str, run_ids: Sequence[str], database: str | None) -> list[str]:
    """Delete runs, their artifacts, and where the database can be reached their rows.

    Args:
        tracking_uri: MLflow server or database.
        run_ids: Which; those that are gone already are fine.
        database: Address of MLflow's database; without it the rows stay, marked as deleted.

    Returns:
        What is left to do by hand.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    deleted = []
    for run_id in run_ids:
        try:
            place = client.get_run(run_id).info.artifact_uri
            client.delete_run(run_id)
        except MlflowException as error:
            if error.error_code != _MISSING:
                raise
            continue
        _delete_artifacts(place, tracking_uri)
        deleted.append(run_id)
    if not deleted:
        return []
    if database is None:
        return [f"{len(deleted)} runs are marked as deleted; on MLflow's machine 'mlflow gc' removes their rows"]
    return [
        told
        for start in range(0, len(deleted), _MOST_AT_ONCE)
        for told in _purge(database, deleted[start:][:_MOST_AT_ONCE])
    ]


def _purge(database: str, run_ids: Sequence[str]) -> list[str]:
    """Remove rows by MLflow's own command, which knows all its tables."""
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", database, "--tracking-uri", database]
    done = subprocess.run(
        [*command, "--run-ids", ",".join(run_ids)], capture_output=True, text=True, timeout=_PURGE_SECONDS, check=False
    )
    if done.returncode:
        return [f"'mlflow gc' failed: {done.stderr.strip().splitlines()[-1:]}; the runs are marked as deleted"]
    return []


def _delete_artifacts(place: str, tracking_uri: str) -> None:
    try:
        get_artifact_repository(place, tracking_uri=tracking_uri).delete_artifacts()
    except FileNotFoundError:
        return
    except Exception as error:  # each kind of store raises its own
        logger.warning("artifacts in %s are not deleted: %s", place, in_short(error))
