"""`RayHook`: the only place that talks to Ray's Jobs REST API, for workers (sync) and triggers (async).

Each call is tried again, with growing and jittered pauses, where the network or the dashboard fails. The token goes
into a header and nowhere else; what Ray answers is shown without the values of the job's environment variables.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from airflow.sdk import BaseHook

from operators.ray_answers import (
    is_transient,
    job_status_of,
    log_request,
    refused,
    token_refused,
    unreachable,
)
from operators.ray_connection import RayAddress
from operators.ray_job import LOST, RayJobRequest, RayJobStatus, RayTokenError, RayUnreachableError
from qwen_core.errors import RayJobError

__all__ = ["LOST", "RayHook", "RayJobRequest", "RayJobStatus"]

_TRIES = 5
_BACKOFF_SECONDS = 1.0
_MOST_BACKOFF_SECONDS = 15.0
_TIMEOUT_SECONDS = 30.0
_TAIL_BYTES = 1 << 20
_STOP_AGAIN_SECONDS = 2.0


class RayHook(BaseHook):
    """Submits, watches and stops Ray jobs over plain HTTP."""

    conn_name_attr = "ray_conn_id"
    default_conn_name = "ray_default"
    conn_type = "ray"
    hook_name = "Ray"

    def __init__(
        self, ray_conn_id: str = default_conn_name, tries: int = _TRIES, address: RayAddress | None = None
    ) -> None:
        """Store the arguments.

        Args:
            ray_conn_id: Connection of type `ray`.
            tries: How often a call is made before Ray counts as unreachable, from 1.
            address: What another hook read of the connection.
        """
        super().__init__()
        self.ray_conn_id = ray_conn_id
        self.tries = tries
        self._address = address
        self._async_client: httpx.AsyncClient | None = None

    def submit(self, request: RayJobRequest, submission_id: str) -> None:
        """Submit a job; one that was submitted under the same id before is left alone.

        Args:
            request: The job.
            submission_id: Chosen by the caller.

        Raises:
            RayJobError: Ray refuses the job or cannot be reached.
        """
        body = request.body(submission_id)
        for attempt in range(self.tries):
            # Posting twice does no harm: Ray takes an id once.
            answer = self._call("POST", "/api/jobs/", are_answers_final=True, json=body)
            # Ray answers 500 to an id that it has (fine), and while its node's agent starts (tried again).
            if answer.status_code == 200 or (is_transient(answer) and self.status(submission_id) is not LOST):
                return
            if not is_transient(answer):
                break
            if attempt < self.tries - 1:
                time.sleep(_pause(attempt))
        raise refused(answer, request, submission_id, self.address.url)

    def status(self, submission_id: str) -> RayJobStatus:
        """Ask for a job's state.

        Args:
            submission_id: The job.

        Returns:
            Its state; `LOST` where the cluster does not know it.

        Raises:
            RayJobError: Ray cannot be reached, or refuses the token.
        """
        return job_status_of(self._call("GET", f"/api/jobs/{submission_id}"), self.address.url)

    def jobs(self) -> list[dict[str, Any]]:
        """List the cluster's submitted jobs, as Ray tells them."""
        answer = self._call("GET", "/api/jobs/")
        job_status_of(answer, self.address.url, is_list=True)
        return [job for job in answer.json() if job.get("submission_id")]

    def log_tail(self, submission_id: str, lines: int = 1000) -> str:
        """Fetch the end of a job's log.

        Args:
            submission_id: The job.
            lines: At most so many, and at most a MiB.

        Returns:
            The end; empty where there is none, and where the node that held it is gone.

        Raises:
            RayJobError: Ray cannot be reached, or refuses the token.
        """
        node_id = self.status(submission_id).node_id
        if node_id is None:
            return ""
        answer = self._call("GET", **log_request(node_id, submission_id, lines), tries=2)
        return answer.content[-_TAIL_BYTES:].decode(errors="replace") if answer.status_code == 200 else ""

    def stop(self, submission_id: str, verify_seconds: float = 10.0) -> RayJobStatus:
        """Stop a job and see that it stops; an ended or unknown one is fine. Nothing is deleted.

        Args:
            submission_id: The job.
            verify_seconds: Waits at most so long for the job's end. Asked again meanwhile: Ray forgets a stop that
                comes before the job's process exists.

        Returns:
            The last state.
        """
        until, asked = time.monotonic() + verify_seconds, -_STOP_AGAIN_SECONDS
        while True:
            if time.monotonic() - asked >= _STOP_AGAIN_SECONDS:
                self._call("POST", f"/api/jobs/{submission_id}/stop", tries=2)
                asked = time.monotonic()
            status = self.status(submission_id)
            if status.is_terminal or time.monotonic() >= until:
                return status
            time.sleep(0.3)

    def test_connection(self) -> tuple[bool, str]:
        """Try the connection, for the button of Airflow's form.

        Returns:
            Whether it works, and what was found.
        """
        try:
            version = self._call("GET", "/api/version", tries=1)
            self._call("GET", "/api/jobs/nothing-of-this-name", tries=1)  # the version is told without a token
            return True, f"Ray {version.json()['ray_version']} answers at {self.address.url}"
        except RayJobError as error:
            return False, str(error)
        except (ValueError, KeyError, TypeError):
            return False, f"what answers at {self.address.url} is no Ray dashboard"

    def job_url(self, submission_id: str) -> str:
        """Name a job's page in Ray's dashboard."""
        return f"{self.address.dashboard_url}/#/jobs/{submission_id}"

    def mlflow_url(self) -> str | None:
        """Name MLflow's pages, where the connection tells."""
        return self.address.mlflow_url

    @property
    def address(self) -> RayAddress:
        """Where the cluster is; the connection is read once, and again when its token is refused."""
        if self._address is None:
            connection = _found(lambda: self.get_connection(self.ray_conn_id), self.ray_conn_id)
            self._address = RayAddress.of(connection, connection.extra_dejson)
        return self._address

    async def async_address(self) -> RayAddress:
        """Say where the cluster is; see `address`."""
        if self._address is None:
            try:
                connection = await self.aget_connection(self.ray_conn_id)
            except Exception as error:
                raise _no_connection(self.ray_conn_id, error) from None
            self._address = RayAddress.of(connection, await connection.aextra_dejson())
        return self._address

    async def async_status(self, submission_id: str) -> RayJobStatus:
        """Ask for a job's state; see `status`."""
        answer = await self._async_call("GET", f"/api/jobs/{submission_id}")
        return job_status_of(answer, (await self.async_address()).url)

    async def async_stop(self, submission_id: str, verify_seconds: float = 10.0) -> RayJobStatus:
        """Stop a job and see that it stops; see `stop`."""
        until, asked = time.monotonic() + verify_seconds, -_STOP_AGAIN_SECONDS
        while True:
            if time.monotonic() - asked >= _STOP_AGAIN_SECONDS:
                await self._async_call("POST", f"/api/jobs/{submission_id}/stop", tries=2)
                asked = time.monotonic()
            status = await self.async_status(submission_id)
            if status.is_terminal or time.monotonic() >= until:
                return status
            await asyncio.sleep(0.3)

    @asynccontextmanager
    async def async_log(self, node_id: str, submission_id: str, lines: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """Read a job's log in pieces; once, without a further try.

        Args:
            node_id: Where it lies.
            submission_id: The job.
            lines: So many from the end; -1 for all.

        Yields:
            The pieces.

        Raises:
            RayUnreachableError: The log cannot be read now.
        """
        client = await self._client()
        request = client.build_request("GET", **log_request(node_id, submission_id, lines))
        try:
            answer = await client.send(request, stream=True)
            try:
                if answer.status_code != 200:
                    raise RayUnreachableError(f"the job's log cannot be read now ({answer.status_code})")
                yield answer.aiter_bytes()
            finally:
                await answer.aclose()
        except httpx.HTTPError as error:
            raise unreachable(str(client.base_url), error) from None

    async def async_close(self) -> None:
        """Close the connection that the async calls share."""
        if self._async_client is not None:
            await self._async_client.aclose()
            self._async_client = None

    def _call(
        self, method: str, url: str, *, tries: int = 0, are_answers_final: bool = False, **arguments: Any
    ) -> httpx.Response:
        left = _Tries(tries or self.tries)
        while True:
            try:
                with httpx.Client(**self.address.client_arguments(), timeout=_TIMEOUT_SECONDS) as client:
                    answer = client.request(method, url, **arguments)
                if token_refused(answer):
                    left.refuse(self.address)
                    self._address = None  # the token may have been changed since it was read
                    continue
                if left.is_last() or are_answers_final or not is_transient(answer):
                    return answer
            except httpx.HTTPError as error:
                if left.is_last():
                    raise unreachable(self.address.url, error) from None
            time.sleep(left.next_pause())

    async def _async_call(self, method: str, url: str, *, tries: int = 0, **arguments: Any) -> httpx.Response:
        left = _Tries(tries or self.tries)
        while True:
            client = await self._client()
            try:
                answer = await client.request(method, url, **arguments)
                if token_refused(answer):
                    left.refuse(await self.async_address())
                    self._address = None
                    await self.async_close()
                    continue
                if left.is_last() or not is_transient(answer):
                    return answer
            except httpx.HTTPError as error:
                if left.is_last():
                    raise unreachable((await self.async_address()).url, error) from None
            await asyncio.sleep(left.next_pause())

    async def _client(self) -> httpx.AsyncClient:
        """Open the one client of a trigger; certificates are read in a thread, for the triggerer's loop must go on."""
        if self._async_client is None:
            address = await self.async_address()
            arguments = await asyncio.to_thread(address.client_arguments)
            self._async_client = httpx.AsyncClient(**arguments, timeout=_TIMEOUT_SECONDS)
        return self._async_client


class _Tries:
    """Counts the tries of one call."""

    def __init__(self, most: int) -> None:
        self._most, self._made, self._refused = most, 0, 0

    def is_last(self) -> bool:
        return self._made >= self._most - 1

    def next_pause(self) -> float:
        self._made += 1
        return _pause(self._made - 1)

    def refuse(self, address: RayAddress) -> None:
        """Allow one further try with a token that is read anew."""
        self._refused += 1
        if self._refused > 1:
            raise RayTokenError(
                f"Ray at {address.url} refuses the {'token' if address.token else 'call without a token'}: set the "
                f"connection's field Token to the cluster's RAY_AUTH_TOKEN (Admin > Connections), then clear this task"
            )


def _pause(attempt: int) -> float:
    """Choose a pause: it doubles, and no two callers come back together."""
    return min(_MOST_BACKOFF_SECONDS, _BACKOFF_SECONDS * 2.0**attempt) * random.uniform(0.5, 1.0)


def pauses() -> Iterable[float]:
    """Tell the pauses between the tries of somebody who asks for ever."""
    attempt = 0
    while True:
        yield _pause(attempt)
        attempt = min(attempt + 1, 10)


def _found(get: Any, conn_id: str) -> Any:
    try:
        return get()
    except Exception as error:
        raise _no_connection(conn_id, error) from None


def _no_connection(conn_id: str, error: Exception) -> RayJobError:
    # The type alone: Airflow's own text may quote the connection.
    return RayJobError(
        f"Airflow has no usable connection '{conn_id}' ({type(error).__name__}): add one of type Ray under "
        f"Admin > Connections, or set AIRFLOW_CONN_{conn_id.upper()}, then clear this task"
    )
