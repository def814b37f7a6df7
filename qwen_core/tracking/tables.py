"""Tables among a run's artifacts, as MLflow's page shows them with filters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS


def table_text(columns: Mapping[str, Sequence[Any]]) -> str:
    """Write a table as MLflow wants it.

    Args:
        columns: Values by column, all of one length.

    Returns:
        JSON.
    """
    told = {"columns": list(columns), "data": [list(row) for row in zip(*columns.values(), strict=True)]}
    return json.dumps(told, ensure_ascii=False)


def store_table(client: MlflowClient, run_id: str, text: str, path: str) -> None:
    """Store a table; an earlier one of this name is replaced.

    Args:
        client: Of the server.
        run_id: The run.
        text: As `table_text` wrote it.
        path: Among the run's artifacts, such as `tables/funnel.json`.
    """
    client.log_text(run_id, text, path)
    known = json.loads(client.get_run(run_id).data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
    entry = {"path": path, "type": "table"}  # without it the page shows the bare JSON
    if entry not in known:
        client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([*known, entry]))
