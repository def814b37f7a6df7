"""From worker to triggerer, without a moment in which nobody would stop the job.

Airflow calls a trigger's `on_kill` only once the trigger runs, a second or three after the task is deferred. A task
that is failed, or whose DAG run is deleted, before that has no trigger any more, and its worker has done its part. So
the worker stays until the trigger says that it is there:

    worker: defer ─▶ ask on: has the trigger come? leave : is the task still wanted? else stop the job
    trigger: starts ─▶ XCom `ray_log_position` ─▶ from here on its on_kill
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

POSITION_KEY = "ray_log_position"
"""XCom of the trigger: it is there, and how much of the job's log it has shown."""

_LONGEST_SECONDS = 10.0
_PAUSE_SECONDS = 0.4
# With these a worker or a trigger of this task is there, or comes and finds the job. A cleared task has none at first.
_WANTED = ("running", "deferred", "scheduled", "queued", "up_for_retry", "restarting", "None", "")


def watch_handover(instance: Any, submission_id: str, stop: Callable[[], None], log: Any) -> None:
    """Stay with a job until its trigger has come.

    Args:
        instance: Airflow's task instance, in its worker, after it was deferred.
        submission_id: The job.
        stop: Stops it.
        log: Of the task.
    """
    until = time.monotonic() + _LONGEST_SECONDS
    while time.monotonic() < until:
        try:
            kept = instance.xcom_pull(key=POSITION_KEY)
            if isinstance(kept, dict) and kept.get("submission_id") == submission_id:
                return
        except Exception:  # of a task that is gone; its state says so
            pass
        state = task_state(instance)
        if state not in _WANTED:
            log.info("the task is %s before its trigger came: stopping Ray job %s", state, submission_id)
            return stop()
        time.sleep(_PAUSE_SECONDS)


def task_state(instance: Any) -> str:
    """Ask Airflow for the state of a task instance.

    Args:
        instance: The task instance, in its worker.

    Returns:
        Airflow's word, `gone` where there is no such task instance, empty where Airflow does not answer.
    """
    try:
        states = instance.get_task_states(
            dag_id=instance.dag_id, run_ids=[instance.run_id], task_ids=[instance.task_id]
        )
    except Exception:
        return ""
    index = getattr(instance, "map_index", -1)
    name = instance.task_id if index < 0 else f"{instance.task_id}_{index}"
    found = states.get(instance.run_id) or {}
    return str(getattr(found[name], "value", found[name])) if name in found else "gone"
