"""What a stage whose artifact exists tells MLflow, without MLflow's client: the stage then ends in seconds.

run found or made ─▶ params, tag qwen_core.reused, figures, datasets ─▶ FINISHED: what `begin_stage_run` leaves behind
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from qwen_core.artifacts import Manifest
from qwen_core.config import Recipe, dump_recipe
from qwen_core.tracking.datasets import OUTPUT, SOURCE, dataset_of, source_datasets
from qwen_core.tracking.flat import flatten, news_of, param_texts
from qwen_core.tracking.headlines import headline_metrics, headline_params
from qwen_core.tracking.opening import Ids, Opening, now_ms, open_run
from qwen_core.tracking.outbox import in_short, outboxes
from qwen_core.tracking.rest import RestClient, is_plain

logger = logging.getLogger(__name__)


def reuse_tags(manifest: Manifest) -> dict[str, str]:
    """Name the run that did the work.

    Args:
        manifest: Of the artifact.

    Returns:
        Tags of the run that reuses it.
    """
    return {"qwen_core.reused": "true", "qwen_core.origin_run_id": manifest.mlflow_run_id or ""}


def tell_reuse(
    tracking_uri: str,
    recipe: Recipe,
    run_key: str,
    manifest: Manifest,
    inputs: Mapping[str, Manifest],
    params: Mapping[str, Any],
    figures: Mapping[str, float],
    spool_uri: str,
) -> Ids | None:
    """Log the run of a stage that had nothing to do.

    Args:
        tracking_uri: MLflow server or database.
        recipe: The whole recipe.
        run_key: The pipeline run.
        manifest: Of the artifact that is there.
        inputs: Manifests of what it was made from, by stage.
        params: As a tree, by section.
        figures: The stage's closing figures.
        spool_uri: Where writes wait while MLflow is away.

    Returns:
        The run's ids; `None` where MLflow's own client is needed, or not everything was told.
    """
    if not is_plain(tracking_uri) or any(outboxes(spool_uri)):  # what waits is to be sent first, and in order
        return None
    now = now_ms()
    opening = Opening(recipe.name, run_key, manifest.stage, manifest.fingerprint, dump_recipe(recipe), now)
    client = RestClient(tracking_uri)
    try:
        # Where runs of one pipeline are opened at the same moment, a second sees what the first has made.
        ids = open_run(client, opening, settle_seconds=1.0)
        flat = dict(flatten(params))
        _log_values(client, ids.run, flat, figures, reuse_tags(manifest), now)
        _log_values(client, ids.parent, headline_params(flat), headline_metrics(manifest.stage, figures), {}, now)
        for run_id, found, context in _datasets(ids, manifest, inputs):
            client.log_datasets(run_id, found, context)
        for run_id in (ids.run, ids.parent):
            client.update_run(run_id, "FINISHED", now_ms())
    except Exception as error:  # also of MLflow's client, which stores the recipe: no fault here stops a stage
        logger.info("MLflow is told by its own client, as it did not take a plain request: %s", in_short(error))
        return None
    return ids


def _log_values(
    client: RestClient,
    run_id: str,
    params: Mapping[str, Any],
    figures: Mapping[str, float],
    tags: Mapping[str, str],
    at_ms: int,
) -> None:
    """Log into a run that an earlier attempt may have logged into: a param never changes, see `writes.params`."""
    new, changed = news_of(param_texts(params), client.get_run(run_id).data.params)
    client.log_values(run_id, params=new, metrics=figures, tags={**tags, **changed}, at_ms=at_ms)


def _datasets(
    ids: Ids, manifest: Manifest, inputs: Mapping[str, Manifest]
) -> Iterator[tuple[str, list[dict[str, str]], str]]:
    for one in inputs.values():
        yield ids.run, [dataset_of(one)], "input"
    for run_id in (ids.run, ids.parent):
        yield run_id, [dataset_of(manifest)], OUTPUT
    sources = source_datasets(manifest)
    if sources:
        yield ids.run, sources, SOURCE
