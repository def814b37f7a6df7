"""Which job belongs to a task: the one that runs already, or a new one.

For each try, from the current one down, and each resubmission: ask Ray for the job of that name.
  runs, and is ours                       ─▶ attach
  ended by itself in the current try      ─▶ attach: its end is the answer that a dead worker did not bring
  runs, of another life of the DAG run or with another command ─▶ stop it: the run was cleared, or its DAG changed
  none of these                           ─▶ submit, under the first free name of the current try
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from operators.ray_hook import RayHook, pauses
from operators.ray_job import (
    LOST,
    RUN_STARTED,
    RayJobRequest,
    RayJobStatus,
    RayUnreachableError,
    submission_id_of,
)
from qwen_core.errors import RayJobError

_MOST_NAMES = 20
Answer = TypeVar("Answer")


def patiently(ask: Callable[[], Answer], seconds: float, log: Any, is_over: Callable[[], bool]) -> Answer:
    """Ask Ray again while it is away, as the watch of a running job does: a head that starts anew costs no try.

    Args:
        ask: May be called again.
        seconds: Ray may be away for so long.
        log: Of the task.
        is_over: Whether the task was killed meanwhile.

    Returns:
        What `ask` returns.

    Raises:
        RayUnreachableError: Ray is away for too long.
    """
    until, is_told = time.monotonic() + seconds, False
    for pause in pauses():
        try:
            return ask()
        except RayUnreachableError as error:
            if is_over() or time.monotonic() >= until:
                raise
            if not is_told:
                log.warning("%s. Asking on for up to %.0f s", error, seconds)
                is_told = True
        time.sleep(pause)
    raise AssertionError("pauses do not end")


def find_or_submit(
    hook: RayHook,
    instance: Any,
    request: RayJobRequest,
    log: Any,
    *,
    most_resubmissions: int,
    first_resubmission: int = 0,
) -> tuple[str, int]:
    """Attach to the job of this task, of this try or an earlier one; submit where there is none.

    Args:
        hook: Asks Ray.
        instance: Airflow's task instance.
        request: The job.
        log: Of the task.
        most_resubmissions: Jobs of an earlier try can have been submitted anew so often.
        first_resubmission: A new job gets this number, or a later one.

    Returns:
        Submission id, and the number of its resubmission.

    Raises:
        RayJobError: Ray refuses the job or cannot be reached.
    """
    taken: set[str] = set()
    for try_number, resubmission in _names(instance.try_number, max(most_resubmissions, first_resubmission)):
        submission_id = submission_id_of(instance, try_number, resubmission)
        status = hook.status(submission_id)
        if status is LOST:
            continue
        taken.add(submission_id)
        is_current = try_number == instance.try_number
        if _is_ours(status, request):
            if not status.is_terminal or (is_current and status.state in ("SUCCEEDED", "FAILED")):
                log.info("found Ray job %s (%s)", submission_id, status.state)
                return submission_id, resubmission
        elif not status.is_terminal:
            log.info("Ray job %s is of an earlier life of this DAG run, or another command: stopping it", submission_id)
            hook.stop(submission_id)
    return _submit(hook, instance, request, range(first_resubmission, _MOST_NAMES), taken, log)


def refuse_twin(hook: RayHook, submission_id: str, exclusive_key: str) -> None:
    """Stop a job whose key another one, submitted before, works on.

    Both of two that come at once see each other, and the same one goes on.

    Args:
        hook: Asks Ray.
        submission_id: The own job.
        exclusive_key: Its key.

    Raises:
        RayJobError: There is an earlier one; it is named.
    """
    alive = [
        job
        for job in hook.jobs()
        if (job.get("metadata") or {}).get("exclusive_key") == exclusive_key and not RayJobStatus.of(job).is_terminal
    ]
    first = min(alive, key=lambda job: (job.get("start_time") or 0, job["submission_id"]), default=None)
    if first is None or first["submission_id"] == submission_id:
        return
    hook.stop(submission_id)
    told = first.get("metadata") or {}
    raise RayJobError(
        f"Ray job {first['submission_id']} (DAG run {told.get('run_id', '?')}) works on '{exclusive_key}' already, so "
        f"this one was stopped and nothing is damaged. Wait for the other one, or stop it, and clear this task; "
        f"or start the DAG with another run key"
    )


def _names(try_number: int, max_resubmissions: int) -> Iterator[tuple[int, int]]:
    for number in range(try_number, 0, -1):
        for resubmission in range(max_resubmissions, -1, -1):
            yield number, resubmission


def _is_ours(status: RayJobStatus, request: RayJobRequest) -> bool:
    """Tell whether a job does this task's work in this life of the DAG run."""
    same_life = status.metadata.get(RUN_STARTED, "") == request.metadata.get(RUN_STARTED, "")
    return same_life and status.entrypoint == request.entrypoint


def _submit(
    hook: RayHook, instance: Any, request: RayJobRequest, numbers: range, taken: set[str], log: Any
) -> tuple[str, int]:
    for resubmission in numbers:
        submission_id = submission_id_of(instance, instance.try_number, resubmission)
        if submission_id not in taken and (not taken or hook.status(submission_id) is LOST):
            hook.submit(request, submission_id)
            log.info("submitted Ray job %s: %s", submission_id, request.entrypoint)
            return submission_id, resubmission
    raise RayJobError(
        f"Ray knows {_MOST_NAMES} ended jobs of this task and try already: delete some in Ray, or clear the task"
    )
