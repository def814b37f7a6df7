"""How a job's end becomes a task's: which exit codes are skipped, tried again or not, and the words for each."""

from __future__ import annotations

from collections.abc import Sequence

from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, AirflowTaskTimeout

from operators.ray_job import RayJobStatus
from qwen_core.errors import DivergedError, InputError, MissingDependencyError, NothingToDoError, RecipeError

NO_RETRY = {
    RecipeError.exit_code: "The recipe, or the command line, is wrong",
    InputError.exit_code: "The input is wrong",
    MissingDependencyError.exit_code: "The cluster lacks a part of the installation",
    DivergedError.exit_code: "The training went astray",
    NothingToDoError.exit_code: "There is nothing to do",
    127: "The cluster does not know the command",
}
"""Exit codes of a job that no retry can mend, and what they say."""


UNENDED = ("TIMEOUT", "UNREACHABLE", "REFUSED")
"""States in which the task is over and the job may not be."""

_LOG_LINES = 30


def failure(
    submission_id: str,
    status: RayJobStatus,
    log: str,
    skip_on_exit_code: int | Sequence[int] | None,
    fail_on_exit_code: int | Sequence[int] | None,
) -> Exception:
    """Choose the task's end by the job's exit code; the job's last words come last.

    Args:
        submission_id: The job.
        status: Its last state.
        log: The end of its log.
        skip_on_exit_code: With these the task is skipped.
        fail_on_exit_code: With these it is not tried again.

    Returns:
        The exception to raise.
    """
    tail = "\n".join(log.splitlines()[-_LOG_LINES:])
    code = status.exit_code
    if code is not None and code in _codes(skip_on_exit_code):
        return AirflowSkipException(tail or f"Ray job {submission_id} ended with {code}")
    reason = status.message.splitlines()[0] if status.message else "no message"
    text = f"Ray job {submission_id} ended as {status.state} ({reason}).\n{tail}"
    if code is not None and code in _codes(fail_on_exit_code):
        why = NO_RETRY.get(code, f"The job ended with {code}")
        return AirflowFailException(f"{text}\n{why}: no retry can mend it.")
    return AirflowException(text)


def unended(submission_id: str, status: RayJobStatus) -> BaseException:
    """Word that the task is over and the job may not be.

    Args:
        submission_id: The job.
        status: One of `UNENDED`.

    Returns:
        The exception to raise.
    """
    if status.state == "TIMEOUT":
        return AirflowTaskTimeout(f"Ray job {submission_id}: {status.message}")
    if status.state == "REFUSED":
        return AirflowFailException(f"Ray job {submission_id} may still run. {status.message}; it finds the job again")
    return AirflowException(f"Ray job {submission_id} may still run, the next try finds it again. {status.message}")


def _codes(told: int | Sequence[int] | None) -> Sequence[int]:
    return () if told is None else (told,) if isinstance(told, int) else told
