"""`RayHook`: the only place that talks to Ray's Jobs REST API.

Connection type `ray`: host and port of the dashboard (`schema` https for TLS), `password` the cluster's token,
extra `mlflow_url` for the button to MLflow.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import httpx
from airflow.sdk import BaseHook

from qwen_core.errors import RayJobError

_RETRIES = 5
_BACKOFF_SECONDS = 1.0
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class RayJobStatus:
    """A job's state.

    Attributes:
        state: Ray's word: PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED; or LOST when the cluster knows no such job.
        message: Ray's explanation.
        exit_code: Of the job's command, where it ended by itself.
    """

    state: str
    message: str = ""
    exit_code: int | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended."""
        return self.state in ("STOPPED", "SUCCEEDED", "FAILED", "LOST")

    @property
    def is_successful(self) -> bool:
        """Whether the job did its work."""
        return self.state == "SUCCEEDED"


LOST = RayJobStatus("LOST", "the Ray cluster does not know the job: it was restarted, or the job was deleted")


class RayHook(BaseHook):
    """Submits, watches and stops Ray jobs over plain HTTP; connection errors and 5xx are tried again."""

    conn_name_attr = "ray_conn_id"
    default_conn_name = "ray_default"
    conn_type = "ray"
    hook_name = "Ray"

    def __init__(self, ray_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.ray_conn_id = ray_conn_id
        self._async_client: httpx.AsyncClient | None = None

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Shape the connection's form."""
        return {
            "hidden_fields": ["login"],
            "relabeling": {"password": "Token", "host": "Dashboard host", "port": "Dashboard port"},
            "placeholders": {"host": "127.0.0.1", "port": "8265", "extra": '{"mlflow_url": "http://127.0.0.1:5000"}'},
        }

    def submit(self, entrypoint: str, submission_id: str, env_vars: dict[str, str], metadata: dict[str, str]) -> None:
        """Submit a job; one that was submitted under the same id before is left alone.

        Args:
            entrypoint: Shell command that the cluster runs.
            submission_id: Chosen by the caller.
            env_vars: Environment of the command, beside the cluster's own.
            metadata: Shown in Ray's dashboard.

        Raises:
            RayJobError: Ray refuses the job or cannot be reached.
        """
        body = {
            "entrypoint": entrypoint,
            "submission_id": submission_id,
            "runtime_env": {"env_vars": env_vars} if env_vars else {},
            "metadata": metadata,
        }
        for attempt in range(_RETRIES):
            answer = self._call("POST", "/api/jobs/", json=body)
            # Ray answers 500 to an id that it has (fine), and while its node's agent starts (tried again).
            if answer.status_code == 200 or self.status(submission_id) is not LOST:
                return
            if answer.status_code < 500:
                break
            time.sleep(_BACKOFF_SECONDS * 2**attempt)
        raise RayJobError(f"Ray refused the job '{submission_id}': {answer.text.strip()[-500:]}")

    def status(self, submission_id: str) -> RayJobStatus:
        """Ask for a job's state.

        Args:
            submission_id: The job.

        Returns:
            Its state; `LOST` where the cluster does not know it.
        """
        return _status(self._call("GET", f"/api/jobs/{submission_id}"))

    def logs(self, submission_id: str) -> str:
        """Fetch a job's whole log.

        Args:
            submission_id: The job.

        Returns:
            The log; empty for an unknown job.
        """
        return _logs(self._call("GET", f"/api/jobs/{submission_id}/logs"))

    def stop(self, submission_id: str) -> None:
        """Stop a job; an ended or unknown one is fine.

        Args:
            submission_id: The job.
        """
        self._call("POST", f"/api/jobs/{submission_id}/stop")

    async def async_status(self, submission_id: str) -> RayJobStatus:
        """Ask for a job's state; see `status`."""
        return _status(await self._async_call("GET", f"/api/jobs/{submission_id}"))

    async def async_logs(self, submission_id: str) -> str:
        """Fetch a job's whole log; see `logs`."""
        return _logs(await self._async_call("GET", f"/api/jobs/{submission_id}/logs"))

    async def async_stop(self, submission_id: str) -> None:
        """Stop a job; see `stop`."""
        await self._async_call("POST", f"/api/jobs/{submission_id}/stop")

    async def async_mlflow_url(self) -> str | None:
        """Name MLflow's pages; see `mlflow_url`."""
        connection = await self.aget_connection(self.ray_conn_id)
        return connection.extra_dejson.get("mlflow_url")

    async def async_close(self) -> None:
        """Close the connection that the async calls share."""
        if self._async_client is not None:
            await self._async_client.aclose()
            self._async_client = None

    def job_url(self, submission_id: str) -> str:
        """Name a job's page in Ray's dashboard."""
        return f"{_base_url(self.get_connection(self.ray_conn_id))}/#/jobs/{submission_id}"

    def mlflow_url(self) -> str | None:
        """Name MLflow's pages, where the connection tells."""
        return self.get_connection(self.ray_conn_id).extra_dejson.get("mlflow_url")

    def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        connection = self.get_connection(self.ray_conn_id)
        with httpx.Client(
            base_url=_base_url(connection), headers=_headers(connection), timeout=_TIMEOUT_SECONDS
        ) as client:
            for attempt in range(_RETRIES):
                try:
                    answer = client.request(method, path, **arguments)
                    if answer.status_code < 500 or attempt == _RETRIES - 1 or method == "POST":
                        return _checked(answer)
                except httpx.TransportError as error:
                    if attempt == _RETRIES - 1:
                        raise _unreachable(_base_url(connection), error) from error
                time.sleep(_BACKOFF_SECONDS * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _async_call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        client = self._async_client = self._async_client or await self._open_async_client()
        for attempt in range(_RETRIES):
            try:
                answer = await client.request(method, path, **arguments)
                if answer.status_code < 500 or attempt == _RETRIES - 1:
                    return _checked(answer)
            except httpx.TransportError as error:
                if attempt == _RETRIES - 1:
                    raise _unreachable(str(client.base_url).rstrip("/"), error) from error
            await asyncio.sleep(_BACKOFF_SECONDS * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _open_async_client(self) -> httpx.AsyncClient:
        """Open the one client of a trigger: a new one for each call would block the triggerer's loop each time."""
        connection = await self.aget_connection(self.ray_conn_id)
        base, headers = _base_url(connection), _headers(connection)
        return httpx.AsyncClient(base_url=base, headers=headers, timeout=_TIMEOUT_SECONDS)


def fresh_log(log: str, shown: int, status: RayJobStatus) -> str:
    """Cut out what a reader of a growing log has not seen.

    Args:
        log: The whole log so far.
        shown: Characters that have been shown.
        status: Of the job, asked for before the log.

    Returns:
        Whole lines while the job runs, all of the rest when it has ended.
    """
    return log[shown:] if status.is_terminal else log[shown : log.rfind("\n") + 1]


def _base_url(connection: Any) -> str:
    host = connection.host or "127.0.0.1"
    host = host if "://" in host else f"{connection.schema or 'http'}://{host}"
    return f"{host}:{connection.port or 8265}"


def _headers(connection: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {connection.password}"} if connection.password else {}


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.status_code in (401, 403):
        raise RayJobError("Ray refuses the token: set the connection's password to the cluster's token")
    return answer


def _unreachable(address: str, error: Exception) -> RayJobError:
    return RayJobError(
        f"Ray does not answer at {address} ({error or type(error).__name__}). Is its head up, and the "
        f"connection's host and port right? On one machine: qwen-core status"
    )


def _status(answer: httpx.Response) -> RayJobStatus:
    if answer.status_code == 404:
        return LOST
    if answer.status_code != 200:
        raise RayJobError(f"Ray answers {answer.status_code} to the question for a job: {answer.text.strip()[-500:]}")
    told = answer.json()
    return RayJobStatus(told["status"], told.get("message") or "", told.get("driver_exit_code"))


def _logs(answer: httpx.Response) -> str:
    return str(answer.json().get("logs") or "") if answer.status_code == 200 else ""
