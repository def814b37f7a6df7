"""Runs: the layout in MLflow, and the beginning and the end of a stage's run.

experiment <recipe name>
  └─ parent run  <run key>            headline figures, params that differ from the defaults, a note that compares
       ├─ ingest                      tag qwen_core.stage, params, metrics by step, datasets, figures
       ├─ ...
       └─ release

MLflow that is away stops no stage: what it does not take waits in the store (`outbox`), and is sent when it answers, by
this stage, by the next one, or by the next run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stages print their own links

from mlflow.tracking import MlflowClient

from qwen_core.config import Recipe, dump_recipe
from qwen_core.tracking import writes
from qwen_core.tracking.datasets import OUTPUT
from qwen_core.tracking.machine import MachineWatch
from qwen_core.tracking.opening import (
    FINGERPRINT_TAG,
    RUN_KEY_TAG,
    STAGE_TAG,
    Ids,
    Opening,
    now_ms,
    open_run,
    parent_run,
)
from qwen_core.tracking.outbox import (
    Outbox,
    Write,
    answer_soon,
    default_spool,
    in_short,
    is_final,
    logger,
    outboxes,
)
from qwen_core.tracking.stage_run import StageRun

__all__ = ["FINGERPRINT_TAG", "OUTPUT", "RUN_KEY_TAG", "STAGE_TAG", "StageRun", "begin_stage_run", "pipeline_run_id"]

_SETTLE_SECONDS = 1.0
_START_SECONDS = 60.0  # so long a stage waits for MLflow at its start
_END_SECONDS = 30.0


def pipeline_run_id(tracking_uri: str, recipe: Recipe, run_key: str) -> str:
    """Find the parent run of a pipeline run, or make it.

    Args:
        tracking_uri: MLflow server or database.
        recipe: Its name is the experiment's; the resolved text is stored with the run.
        run_key: The pipeline run; also the parent's name.

    Returns:
        The parent's run id.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    return parent_run(client, recipe.name, run_key, dump_recipe(recipe), _SETTLE_SECONDS)


@contextmanager
def begin_stage_run(
    tracking_uri: str, recipe: Recipe, run_key: str, stage: str, fingerprint: str, spool_uri: str | None = None
) -> Iterator[StageRun]:
    """Open the nested run of a stage; a rerun of an unfinished stage goes on in the same run.

    Where MLflow does not answer within a minute the stage goes on without it: its records wait, and are sent when it
    answers, at the latest by the next stage.

    Args:
        tracking_uri: MLflow server or database.
        recipe: The whole recipe.
        run_key: The pipeline run.
        stage: The stage's word; also the run's name.
        fingerprint: Of the stage's artifact.
        spool_uri: Folder for records that wait, best in the artifact store; else one of this machine.

    Yields:
        The handle. The run ends as FINISHED, or as FAILED when an error passes through.
    """
    answer_soon()
    spool = spool_uri or default_spool()
    opening = Opening(recipe.name, run_key, stage, fingerprint, dump_recipe(recipe), now_ms())
    ids = _open_patiently(tracking_uri, opening, spool)
    known = (ids.run, ids.parent, ids.experiment) if ids else ("", "", "")
    run = StageRun(*known, tracking_uri, stage, opening=opening, spool_uri=spool)
    if ids:
        send_all(spool, tracking_uri)
    state = "FAILED"
    try:
        with MachineWatch(run, spool):
            yield run
        state = "FINISHED"
    finally:
        # The parent too ends with each stage: nobody would end it for a pipeline that stops halfway.
        run.write(writes.status(state))
        run.write(writes.status(state, "parent"))
        _finish_sending(run, spool)


def send_all(spool_uri: str, tracking_uri: str) -> int:
    """Send the records of all runs that wait; a server that does not answer leaves them where they are.

    Args:
        spool_uri: Folder of all runs' records.
        tracking_uri: MLflow server or database.

    Returns:
        How many were sent.
    """
    count = 0
    try:
        for outbox in outboxes(spool_uri):
            count += outbox.send(lambda kept: _apply(tracking_uri, kept))
    except Exception as error:
        logger.warning("records that wait in %s are not sent: %s", spool_uri, in_short(error))
    if count:
        logger.warning("MLflow has taken %d records that waited", count)
    return count


def _apply(tracking_uri: str, kept: Write) -> None:
    opening = Opening(**kept["opening"]) if kept["opening"] else None
    ids = Ids(**kept["ids"]) if kept["ids"] else Ids("", "", "")
    stage = opening.stage if opening else ""
    run = StageRun(ids.run, ids.parent, ids.experiment, tracking_uri, stage, opening=opening)
    writes.apply(run.client, run.ids(), kept["write"])


def _open_patiently(tracking_uri: str, opening: Opening, spool: str) -> Ids | None:
    """Open a run; where MLflow does not answer, try for a while, and say so."""
    deadline, pause = time.monotonic() + _START_SECONDS, 1.0
    while True:
        try:
            client = MlflowClient(tracking_uri=tracking_uri)
            # An earlier attempt may have been left without an id, and another process may be sending what waits of it
            is_late = bool(Outbox(spool, opening.key).waiting())
            return open_run(client, opening, _SETTLE_SECONDS, is_late=is_late)
        except Exception as error:
            if is_final(error):
                raise
            left = deadline - time.monotonic()
            if left <= 0:
                print(f"[{opening.stage}] goes on without MLflow; what it logs waits in {spool}", flush=True)
                return None
            told = f"[{opening.stage}] MLflow does not answer ({in_short(error)})"
            print(f"{told}; the stage goes on without it in {left:.0f} s", flush=True)
            time.sleep(min(pause, left))
            pause = min(2 * pause, 15.0)


def _finish_sending(run: StageRun, spool: str) -> None:
    """Send what waits; where MLflow does not answer, try for a while, and say where it is."""
    deadline = time.monotonic() + _END_SECONDS
    while run.reach().is_away and not run.send_waiting(is_urgent=True):
        left = deadline - time.monotonic()
        if left <= 0:
            count = len(Outbox(spool, run.key).waiting())
            told = f"[{run.stage}] MLflow does not answer: {count} records wait in {spool}/{run.key}"
            print(f"{told}; the next stage sends them, or: qwen-core runs", flush=True)
            return
        time.sleep(min(2.0, left))
