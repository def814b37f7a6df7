"""The few calls of MLflow's REST API that it takes to open a run and to log into it.

For who cannot wait for MLflow's own client: loading that takes seconds of CPU. Methods bear its names, and where
`opening` uses them its signatures.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import httpx

_SECONDS = 10.0
MOST_PARAMS, MOST_METRICS, MOST_TAGS = 100, 900, 100
"""In one request; the server takes 1,000 together."""
# Whoever sets one of these expects what MLflow's client makes of it.
_SPECIAL = ("MLFLOW_TRACKING_", "MLFLOW_WORKSPACE")
_PLAIN = ("MLFLOW_TRACKING_URI",)


def is_plain(tracking_uri: str) -> bool:
    """Tell whether a server can be spoken to without MLflow's client.

    Args:
        tracking_uri: MLflow server or database.

    Returns:
        Whether it is a server, and no variable asks for credentials, certificates or workspaces.
    """
    is_special = any(name.startswith(_SPECIAL) and name not in _PLAIN and value for name, value in os.environ.items())
    return tracking_uri.startswith(("http://", "https://")) and not is_special


class RestClient:
    """Speaks to a tracking server; every call raises `httpx.HTTPError` where it does not do as asked."""

    def __init__(self, tracking_uri: str) -> None:
        """Take the address; connect to nothing.

        Args:
            tracking_uri: Of the server.
        """
        self.tracking_uri = tracking_uri.rstrip("/")
        # A plain address needs no authorities, which take long to load.
        self._http = httpx.Client(timeout=_SECONDS, verify=self.tracking_uri.startswith("https"))

    def get_experiment_by_name(self, name: str) -> Any | None:
        """Find an experiment; `None` where there is none."""
        answer = self._ask("GET", "experiments/get-by-name", {"experiment_name": name}, is_missing_fine=True)
        return SimpleNamespace(**answer["experiment"]) if answer else None

    def create_experiment(self, name: str, artifact_location: str | None, tags: Mapping[str, str]) -> str:
        """Make an experiment."""
        return str(self._ask("POST", "experiments/create", {"name": name, "tags": _pairs(tags)})["experiment_id"])

    def search_runs(self, experiment_ids: Sequence[str], filter_string: str) -> list[Any]:
        """Find the runs of a filter: the first thousand."""
        told = {"experiment_ids": list(experiment_ids), "filter": filter_string, "max_results": 1000}
        return [_run(one) for one in self._ask("POST", "runs/search", told).get("runs", [])]

    def create_run(self, experiment_id: str, start_time: int | None, tags: Mapping[str, str], run_name: str) -> Any:
        """Make a run."""
        told = {"experiment_id": experiment_id, "start_time": start_time, "tags": _pairs(tags), "run_name": run_name}
        return _run(self._ask("POST", "runs/create", told)["run"])

    def get_run(self, run_id: str) -> Any:
        """Read a run: `info.experiment_id`, `data.params`."""
        return _run(self._ask("GET", "runs/get", {"run_id": run_id})["run"])

    def update_run(self, run_id: str, status: str, end_time: int | None = None) -> None:
        """Set a run's state, and when it ended."""
        ended = {"end_time": end_time} if end_time is not None else {}
        self._ask("POST", "runs/update", {"run_id": run_id, "status": status, **ended})

    def delete_run(self, run_id: str) -> None:
        """Delete a run."""
        self._ask("POST", "runs/delete", {"run_id": run_id})

    def log_values(
        self,
        run_id: str,
        *,
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        at_ms: int,
    ) -> None:
        """Log params, tags, and metrics of step 0."""
        figures = [
            {"key": name, "value": _number(value), "timestamp": at_ms, "step": 0} for name, value in metrics.items()
        ]
        kinds = (
            ("params", _pairs(params), MOST_PARAMS),
            ("tags", _pairs(tags), MOST_TAGS),
            ("metrics", figures, MOST_METRICS),
        )
        for kind, told, most in kinds:
            for start in range(0, len(told), most):
                self._ask("POST", "runs/log-batch", {"run_id": run_id, kind: told[start : start + most]})

    def log_datasets(self, run_id: str, found: Iterable[Mapping[str, str]], context: str) -> None:
        """Log datasets as inputs of a run; see `writes.datasets`."""
        tags = [{"key": "mlflow.data.context", "value": context}]
        told = [{"tags": tags, "dataset": dict(one)} for one in found]
        self._ask("POST", "runs/log-inputs", {"run_id": run_id, "datasets": told})

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        """Store a text as an artifact: by MLflow's client, as servers keep artifacts in many places."""
        from mlflow.tracking import MlflowClient

        MlflowClient(tracking_uri=self.tracking_uri).log_text(run_id, text, artifact_file)

    def _ask(self, method: str, path: str, told: Mapping[str, Any], is_missing_fine: bool = False) -> dict[str, Any]:
        how: dict[str, Any] = {"params": told} if method == "GET" else {"json": told}
        url = f"{self.tracking_uri}/api/2.0/mlflow/{path}"
        answer = self._http.request(method, url, **how)
        if is_missing_fine and answer.status_code == 404:
            return {}
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def _run(told: Mapping[str, Any]) -> Any:
    data = {part: {one["key"]: one["value"] for one in told["data"].get(part, [])} for part in ("params", "tags")}
    return SimpleNamespace(info=SimpleNamespace(**told["info"]), data=SimpleNamespace(**data))


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": name, "value": value} for name, value in values.items()]


def _number(value: float) -> float | str:
    """Write what JSON has no number for as MLflow's server reads it."""
    return value if math.isfinite(value) else {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
