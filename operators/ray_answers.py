"""What Ray's answers mean: a job, no such job, not Ray at all, try again, or a refusal."""

from __future__ import annotations

from typing import Any

import httpx

from operators.ray_job import LOST, RayJobRequest, RayJobStatus, RayUnreachableError
from qwen_core.errors import RayJobError

_SHOWN = 800
_NO_NODE_YET = "No available agent"


def log_request(node_id: str, submission_id: str, lines: int) -> dict[str, Any]:
    """Compose the question for the end of a job's log.

    The Jobs API has only the whole log, each time; the State API reads backwards from the file's end.

    Args:
        node_id: Where the job's command runs.
        submission_id: The job.
        lines: So many from the end; -1 for all.

    Returns:
        `url` and `params` of a GET.
    """
    name = f"job-driver-{submission_id}.log"
    # The limit is for the whole of a transfer; a log of 1 GB takes seconds.
    return {"url": "/api/v0/logs/file", "params": {"node_id": node_id, "filename": name, "lines": lines, "timeout": 60}}


def token_refused(answer: httpx.Response) -> bool:
    """Tell whether the token is missing or wrong."""
    return answer.status_code in (401, 403)


def is_transient(answer: httpx.Response) -> bool:
    """Tell whether another try may help."""
    return answer.status_code >= 500 or answer.status_code == 429


def job_status_of(answer: httpx.Response, url: str, is_list: bool = False) -> RayJobStatus:
    """Read the answer to the question for a job.

    Args:
        answer: Ray's, or a proxy's.
        url: Who was asked.
        is_list: All jobs were asked for; nothing is read then.

    Returns:
        The state; `LOST` where Ray itself says that it knows no such job.

    Raises:
        RayUnreachableError: Somebody else answers, or Ray is not ready.
    """
    if answer.status_code == 404 and "does not exist" in answer.text[:1000]:
        return LOST
    try:
        if answer.status_code == 200:
            return LOST if is_list and isinstance(answer.json(), list) else RayJobStatus.of(answer.json())
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise RayUnreachableError(
        f"what answers at {url} is not Ray's dashboard, or it is not ready ({answer.status_code}): "
        f"are the connection's host and port right? On one machine: qwen-core status"
    )


def refused(answer: httpx.Response, request: RayJobRequest, submission_id: str, url: str) -> RayJobError:
    """Word that Ray did not take a job.

    Args:
        answer: Ray's.
        request: The job. The values of its environment variables are not shown: Ray quotes what it was sent.
        submission_id: Its id.
        url: Who was asked.

    Returns:
        The error to raise; `RayUnreachableError` where a cluster that starts has no node yet.
    """
    if answer.status_code in (502, 503, 504) or _NO_NODE_YET in answer.text:
        return RayUnreachableError(f"Ray at {url} takes no jobs yet ({answer.status_code}): no node of it is ready")
    text = answer.text
    for value in (request.runtime_env.get("env_vars") or {}).values():
        if len(str(value)) >= 4:
            text = text.replace(str(value), "***")
    return RayJobError(f"Ray refused the job '{submission_id}' ({answer.status_code}): {text.strip()[-_SHOWN:]}")


def unreachable(url: str, error: Exception) -> RayUnreachableError:
    """Word that nobody answers.

    Args:
        url: Who was asked.
        error: What came instead.

    Returns:
        The error to raise.
    """
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return RayUnreachableError(
            f"the certificate of {url} is not trusted: set the connection's field CA file to its authority"
        )
    return RayUnreachableError(
        f"Ray does not answer at {url} ({error or type(error).__name__}). Is its head up, and the "
        f"connection's host, port and TLS right? On one machine: qwen-core status"
    )
