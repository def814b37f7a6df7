#!/usr/bin/env python3
"""`make compose-demo`: runs a recipe through Airflow's REST API, tells each stage as it ends, waits for the last.

usage: demo.py [RECIPE] [KEY=VALUE...]      RECIPE: bundled (demo), or a file below /data
environment: RUN_KEY continues a pipeline run; finished stages are not run again
"""

import datetime
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qwen_core.errors import PlatformError
from qwen_core.platform.airflow import AirflowClient
from qwen_core.stages import DAGS

POLL_SECONDS = 3
HANDOVER_SECONDS = 180
OUTAGE_SECONDS = 300


def patiently(ask: Callable[..., Any], *arguments: Any) -> Any:
    """Ask Airflow, and go on asking while its API server is being restarted."""
    deadline = time.monotonic() + OUTAGE_SECONDS
    while True:
        try:
            return ask(*arguments)
        except PlatformError as error:
            if time.monotonic() > deadline:
                sys.exit(str(error))
            time.sleep(POLL_SECONDS)


def follow(airflow: AirflowClient, dag: str, run: str) -> None:
    """Tell the tasks of a DAG run as they end; a failed run ends the program with the log of what failed."""
    told: set[str] = set()
    while True:
        state = patiently(airflow.dag_run, dag, run)["state"]
        tasks = patiently(airflow.task_instances, dag, run)
        for task in tasks:
            if task["state"] in ("success", "skipped", "failed", "upstream_failed") and task["task_id"] not in told:
                told.add(task["task_id"])
                print(f"  {task['task_id']:<14} {task['state']:<16} {task.get('duration') or 0:6.1f} s", flush=True)
        if state == "success":
            return
        if state == "failed":
            failed = next((task for task in tasks if task["state"] == "failed"), None)
            if failed:
                log = patiently(airflow.task_log, dag, run, failed["task_id"], failed["try_number"])
                print("\n".join(log.splitlines()[-40:]))
            sys.exit(f"{dag} failed; its page: {os.environ['AIRFLOW__API__BASE_URL']}/dags/{dag}/runs/{run}")
        time.sleep(POLL_SECONDS)


def next_run(airflow: AirflowClient, dag: str, run: str, following: str) -> str:
    """Wait for the DAG run that a DAG's asset starts."""
    deadline = time.monotonic() + HANDOVER_SECONDS
    while time.monotonic() < deadline:
        if started := patiently(airflow.runs_started_by, dag, run, following):
            return started[0]
        time.sleep(POLL_SECONDS)
    sys.exit(f"'{dag}' ended, but '{following}' did not start within {HANDOVER_SECONDS} s. Is it paused in Airflow?")


def main(recipe: str = "demo", *overrides: str) -> None:
    """Trigger the first DAG and follow the chain."""
    airflow = AirflowClient(
        os.environ.get("AIRFLOW_API", "http://api-server:8080"),
        os.environ["AIRFLOW_USER"],
        os.environ["AIRFLOW_PASSWORD"],
    )
    key = os.environ.get("RUN_KEY") or f"{Path(recipe).stem}-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}"
    run = airflow.trigger(DAGS[0], {"recipe": recipe, "overrides": list(overrides) or None, "run_key": key})
    print(f"run key {key}, recipe {recipe}", flush=True)
    for position, dag in enumerate(DAGS):
        print(f"{dag}  {run}", flush=True)
        follow(airflow, dag, run)
        if position + 1 < len(DAGS):
            run = next_run(airflow, dag, run, DAGS[position + 1])
    print(f"run key {key} finished")


if __name__ == "__main__":
    main(*sys.argv[1:])
