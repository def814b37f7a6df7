"""The writes of a stage to MLflow, as plain JSON: each can be done now, or kept and done later, with the same effect.

{"kind": "params", ...} ─▶ apply ─▶ MLflow
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.tracking import MlflowClient

from qwen_core.tracking.flat import news_of, param_texts
from qwen_core.tracking.leftover import send_points
from qwen_core.tracking.opening import Ids, now_ms
from qwen_core.tracking.outbox import Write
from qwen_core.tracking.rest import MOST_METRICS, MOST_PARAMS, MOST_TAGS
from qwen_core.tracking.tables import store_table, table_text


def apply(client: MlflowClient, ids: Ids, write: Write) -> None:
    """Do a write.

    Args:
        client: Of the server.
        ids: Of the run.
        write: Its `kind` names one of `params`, `metrics`, `tags`, `text`, `bytes`, `table`, `datasets`, `status`,
            `points`; `on` the run that it is about.

    Raises:
        ValueError: There is no such kind.
    """
    kind = _KINDS.get(write["kind"])
    if kind is None:
        raise ValueError(f"no such kind of write: {write['kind']}")
    kind(client, ids.of(write.get("on", "run")), write)


def params(values: Mapping[str, Any], on: str = "run") -> Write:
    """Set params; see `StageRun.log_params`."""
    return {"kind": "params", "on": on, "values": param_texts(values)}


def missing_params(values: Mapping[str, Any]) -> Write:
    """Set params that the run does not have yet; those that it has stay, without a tag."""
    return params(values) | {"is_partial": True}


def _params(client: MlflowClient, run_id: str, write: Write) -> None:
    told, changed = news_of(write["values"], client.get_run(run_id).data.params)
    new = [Param(name, text) for name, text in told.items()]
    for start in range(0, len(new), MOST_PARAMS):
        client.log_batch(run_id, params=new[start : start + MOST_PARAMS])
    if changed and not write.get("is_partial"):
        client.log_batch(run_id, tags=[RunTag(name, text) for name, text in changed.items()][:MOST_TAGS])


def metrics(values: Mapping[str, float], step: int = 0, on: str = "run") -> Write:
    """Log figures of one step, of now."""
    told = {name: float(value) for name, value in values.items()}
    return {"kind": "metrics", "on": on, "step": step, "ms": now_ms(), "values": told}


def _metrics(client: MlflowClient, run_id: str, write: Write) -> None:
    batch = [Metric(name, value, write["ms"], write["step"]) for name, value in write["values"].items()]
    for start in range(0, len(batch), MOST_METRICS):
        client.log_batch(run_id, metrics=batch[start : start + MOST_METRICS])


def tags(values: Mapping[str, str], on: str = "run") -> Write:
    """Set tags."""
    return {"kind": "tags", "on": on, "values": dict(values)}


def _tags(client: MlflowClient, run_id: str, write: Write) -> None:
    found = [RunTag(name, value) for name, value in write["values"].items()]
    for start in range(0, len(found), MOST_TAGS):
        client.log_batch(run_id, tags=found[start : start + MOST_TAGS])


def text(content: str, name: str, on: str = "run") -> Write:
    """Store a text as an artifact."""
    return {"kind": "text", "on": on, "name": name, "content": content}


def _text(client: MlflowClient, run_id: str, write: Write) -> None:
    client.log_text(run_id, write["content"], write["name"])


def raw(content: bytes, name: str, on: str = "run") -> Write:
    """Store bytes as an artifact."""
    return {"kind": "bytes", "on": on, "name": name, "content": base64.b64encode(content).decode()}


def _bytes(client: MlflowClient, run_id: str, write: Write) -> None:
    folder, _, name = write["name"].rpartition("/")
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / name
        path.write_bytes(base64.b64decode(write["content"]))
        client.log_artifact(run_id, str(path), folder or None)


def table(columns: Mapping[str, Sequence[Any]], name: str, on: str = "run") -> Write:
    """Store a table as an artifact that MLflow's page shows with filters."""
    return {"kind": "table", "on": on, "name": f"tables/{name}.json", "content": table_text(columns)}


def _table(client: MlflowClient, run_id: str, write: Write) -> None:
    store_table(client, run_id, write["content"], write["name"])


def datasets(found: Sequence[Mapping[str, str]], context: str, on: str = "run") -> Write:
    """Log datasets as inputs of a run: mappings of `name`, `digest`, `source_type`, `source`, `profile`, `schema`."""
    return {"kind": "datasets", "on": on, "context": context, "found": [dict(one) for one in found]}


def _datasets(client: MlflowClient, run_id: str, write: Write) -> None:
    context = [InputTag("mlflow.data.context", write["context"])]
    client.log_inputs(run_id, datasets=[DatasetInput(DatasetEntity(**one), context) for one in write["found"]])


def status(state: str, on: str = "run") -> Write:
    """End a run, now: `FINISHED` or `FAILED`; or set it `RUNNING`."""
    return {"kind": "status", "on": on, "state": state, "ms": now_ms()}


def _status(client: MlflowClient, run_id: str, write: Write) -> None:
    if write["state"] == RunStatus.to_string(RunStatus.RUNNING):
        client.update_run(run_id, status=write["state"])
    else:
        client.set_terminated(run_id, write["state"], write["ms"])


def model(name: str, version: str, found: Sequence[Mapping[str, Any]], tags: Mapping[str, str]) -> Write:
    """Tell what a registered model measures on which dataset: mappings of `name`, `value`, `dataset`, `digest`."""
    figures = [dict(one) for one in found]
    return {"kind": "model", "name": name, "version": version, "ms": now_ms(), "found": figures, "tags": dict(tags)}


def _model(client: MlflowClient, run_id: str, write: Write) -> None:
    model_id = client.get_model_version(write["name"], write["version"]).model_id
    if not model_id:  # registered by an older MLflow
        return
    client.set_logged_model_tags(model_id, write["tags"])
    batch = [
        Metric(
            one["name"],
            one["value"],
            write["ms"],
            0,
            model_id=model_id,
            dataset_name=one["dataset"],
            dataset_digest=one["digest"],
            run_id=run_id,
        )
        for one in write["found"]
    ]
    if batch:
        client.log_batch(run_id, metrics=batch)


_KINDS: dict[str, Callable[[MlflowClient, str, Write], None]] = {
    "params": _params,
    "metrics": _metrics,
    "tags": _tags,
    "text": _text,
    "bytes": _bytes,
    "table": _table,
    "datasets": _datasets,
    "status": _status,
    "points": send_points,
    "model": _model,
}
