"""Whether a pipeline run's last stage failed, as MLflow knows it."""

from __future__ import annotations

import datetime

from mlflow.tracking import MlflowClient

from qwen_core.tracking.runs import RUN_KEY_TAG, STAGE_TAG


def failed_at(tracking_uri: str, experiment: str, run_key: str) -> datetime.datetime | None:
    """Tell when a pipeline run failed, unless it has gone on since.

    Args:
        tracking_uri: MLflow server or database.
        experiment: The recipe's name.
        run_key: The pipeline run.

    Returns:
        When its last stage ended as FAILED; `None` where it did not, or where nothing is known of it.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    runs = client.search_runs(
        [found.experiment_id],
        f"tags.`{RUN_KEY_TAG}` = '{run_key}' and tags.`{STAGE_TAG}` != 'pipeline'",
        order_by=["attributes.start_time DESC"],
    )
    if not runs or any(run.info.status == "RUNNING" for run in runs):
        return None
    last = max(runs, key=lambda run: run.info.end_time or 0)
    if last.info.status != "FAILED" or not last.info.end_time:
        return None
    return datetime.datetime.fromtimestamp(last.info.end_time / 1000, datetime.UTC)
