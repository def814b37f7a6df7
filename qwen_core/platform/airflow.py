"""The few calls of Airflow's REST API that the command line needs."""

from __future__ import annotations

import datetime
import json
import secrets
import time
from pathlib import Path
from typing import Any

import httpx

from qwen_core.errors import PlatformError

POOLS = Path(__file__).with_name("pools.json")
"""Pools of the DAGs, as `airflow pools import` reads them too."""


class AirflowClient:
    """Talks to one Airflow, as the generated user."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url, self._user, self._password = url, user, password
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def trigger(self, dag_id: str, conf: dict[str, Any], partition_key: str | None = None) -> str:
        """Start a DAG run.

        Args:
            dag_id: The DAG; right after the first start of the platform it may take a while to appear.
            conf: Params of its trigger form.
            partition_key: Shown with the run, for a DAG that has partitions: `corpus` and those behind it.

        Returns:
            The DAG run's id.

        Raises:
            PlatformError: The DAG does not appear, or refuses a value of the form.
        """
        # With an id of our own a question that `_request` puts twice makes one run.
        run_id = f"manual__{datetime.datetime.now(datetime.UTC).isoformat()}_{secrets.token_hex(4)}"
        body: dict[str, Any] = {"dag_run_id": run_id, "conf": conf, "logical_date": None}
        body |= {"partition_key": partition_key} if partition_key else {}
        deadline = time.monotonic() + 60
        while True:
            answer = self._request("POST", f"/api/v2/dags/{dag_id}/dagRuns", json=body)
            is_there = answer.status_code == 409 and self._request("GET", self._run_path(dag_id, run_id)).is_success
            if answer.status_code == 200 or is_there:
                return run_id
            if answer.status_code != 404 or time.monotonic() > deadline:
                raise PlatformError(f"Airflow refused to run '{dag_id}': {answer.text[:500]}")
            time.sleep(1)

    def has_dags(self, dag_ids: tuple[str, ...]) -> bool:
        """Tell whether the DAG processor has brought these DAGs in."""
        answer = self._request("GET", "/api/v2/dags", params={"limit": 100})
        known = {dag["dag_id"] for dag in answer.json().get("dags", [])} if answer.status_code == 200 else set()
        return set(dag_ids) <= known

    def ensure_pools(self) -> None:
        """Make the pools of `pools.json`, where there are none; one that a person has changed is left alone."""
        pools: dict[str, dict[str, Any]] = json.loads(POOLS.read_text(encoding="utf-8"))
        for name, pool in pools.items():
            if self._request("GET", f"/api/v2/pools/{name}").status_code == 404:
                answer = self._request("POST", "/api/v2/pools", json={"name": name, **pool})
                if answer.status_code not in (201, 409):  # the second: somebody else was quicker
                    raise PlatformError(f"Airflow refused to make the pool '{name}': {answer.text[:300]}")

    def dag_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Fetch a DAG run; `state` is its state."""
        return self._json(self._run_path(dag_id, run_id))

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Fetch the task instances of a DAG run."""
        found = self._json(f"{self._run_path(dag_id, run_id)}/taskInstances")
        return list(found["task_instances"])

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str) -> Any:
        """Fetch an XCom value; `None` where there is none."""
        path = f"{self._run_path(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        answer = self._request("GET", path)
        return answer.json().get("value") if answer.status_code == 200 else None

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> str:
        """Fetch a task's log as text."""
        path = f"{self._run_path(dag_id, run_id)}/taskInstances/{task_id}/logs/{try_number}"
        answer = self._request("GET", path, params={"full_content": "true"})
        if answer.status_code != 200:
            return ""
        content = answer.json().get("content", "")
        if isinstance(content, str):
            return content
        return "\n".join(_log_line(entry) for entry in content)

    def waiting_actions(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Find what a DAG run asks a person.

        Args:
            dag_id: The DAG.
            run_id: The DAG run.

        Returns:
            Unanswered questions: `subject`, `body`, `options`, and the `task_instance`.
        """
        path = f"{self._run_path(dag_id, run_id)}/hitlDetails"
        found = self._json(path, response_received=False)
        return [one for one in found["hitl_details"] if one["task_instance"]["state"] in ("awaiting_input", "deferred")]

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str, note: str = "") -> None:
        """Answer what a task asks.

        Args:
            dag_id: The DAG.
            run_id: The DAG run.
            task_id: The task.
            option: One of its options.
            note: Why.

        Raises:
            PlatformError: It was answered already, or the option is none of its.
        """
        path = f"{self._run_path(dag_id, run_id)}/taskInstances/{task_id}/-1/hitlDetails"
        body = {"chosen_options": [option], "params_input": {"note": note}}
        answer = self._request("PATCH", path, json=body)
        if answer.status_code != 200:
            raise PlatformError(f"Airflow refused the answer to '{task_id}': {answer.text[:300]}")

    def runs_started_by(self, dag_id: str, run_id: str, next_dag: str) -> list[str]:
        """Find the runs of a DAG that another DAG run's asset event started."""
        found = self._json("/api/v2/assets/events", source_dag_id=dag_id, source_run_id=run_id)
        return [
            str(run["run_id"] if "run_id" in run else run["dag_run_id"])
            for event in found["asset_events"]
            for run in event["created_dagruns"]
            if run["dag_id"] == next_dag
        ]

    @staticmethod
    def _run_path(dag_id: str, run_id: str) -> str:
        return f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"

    def _json(self, path: str, **params: Any) -> dict[str, Any]:
        answer = self._request("GET", path, params=params)
        if answer.status_code != 200:
            raise PlatformError(f"Airflow answers {answer.status_code} to {path}: {answer.text[:300]}")
        found: dict[str, Any] = answer.json()
        return found

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Ask, with a fresh token where the old one ran out, and again where the server is just busy."""
        for attempt in range(6):
            is_last = attempt == 5
            try:
                if "Authorization" not in self._http.headers:
                    self._log_in()
                answer = self._http.request(method, path, **arguments)
            except httpx.TransportError as error:
                if is_last:
                    raise PlatformError(
                        f"Airflow does not answer at {self._url} ({error}); see: qwen-core status"
                    ) from error
            else:
                if answer.status_code == 401:
                    del self._http.headers["Authorization"]
                    continue
                # 500: SQLite was locked; or (Airflow 3.3) the DAG run of an asset event has not started yet.
                if answer.status_code < 500 or is_last:
                    return answer
            time.sleep(2**attempt * 0.5)
        return answer

    def _log_in(self) -> None:
        answer = self._http.post("/auth/token", json={"username": self._user, "password": self._password})
        if answer.status_code not in (200, 201):
            raise PlatformError(f"Airflow refuses the generated user ({answer.status_code}): is {self._url} ours?")
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"


def _log_line(entry: dict[str, Any]) -> str:
    """Write an entry of a structured log as text; an error's type and message follow the event."""
    lines = [str(entry.get("event", entry))]
    lines += [f"{error.get('exc_type')}: {error.get('exc_value')}" for error in entry.get("error_detail") or []]
    return "\n".join(lines)
