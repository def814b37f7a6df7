"""Following a pipeline run: from DAG run to DAG run along the assets, stage by stage, line by line.

trigger corpus ─▶ task states ─▶ asset event ─▶ DAG run of pretrain ─▶ ... ─▶ release done
                    └─ job log (Ray) ─▶ progress lines ─▶ board
"""

from __future__ import annotations

import time
from typing import Any

from qwen_core import progress
from qwen_core.artifacts import Store
from qwen_core.cli.board import Board
from qwen_core.errors import QwenCoreError
from qwen_core.platform import Platform
from qwen_core.stages import DAGS, STAGES

_POLL_SECONDS = 1.5
_HANDOVER_SECONDS = 120.0  # an asset event becomes a DAG run within seconds; minutes mean that something is wrong
_LOG_LINES = 30


class StageFailedError(QwenCoreError):
    """A stage of the followed run failed; the text holds the end of its log and what to do."""

    def __init__(self, stage: str, text: str) -> None:
        super().__init__(text)
        self.stage = stage


class Follower:
    """Follows one pipeline run through the platform's Airflow and Ray."""

    def __init__(self, platform: Platform, run_key: str) -> None:
        self._platform = platform
        self._airflow = platform.airflow
        self._store = Store(platform.store_root)
        self._run_key = run_key
        self._first_run_id = ""
        self._finished: set[str] = set()
        self._told: set[str] = set()

    def trigger(self, conf: dict[str, Any]) -> str:
        """Start the first DAG.

        Args:
            conf: Params of the trigger form.

        Returns:
            The DAG run's id.
        """
        self._first_run_id = self._airflow.trigger(DAGS[0], conf, partition_key=self._run_key)
        return self._first_run_id

    def follow(self, board: Board) -> None:
        """Show the run's progress until its last DAG has ended.

        Args:
            board: Where to show it.

        Raises:
            StageFailedError: A stage failed for good.
        """
        run_id = self._first_run_id
        for position, dag in enumerate(DAGS):
            self._follow_dag(dag, run_id, board)
            if position + 1 < len(DAGS):
                run_id = self._handover(dag, run_id, DAGS[position + 1])

    def _follow_dag(self, dag: str, run_id: str, board: Board) -> None:
        while True:
            state = self._airflow.dag_run(dag, run_id)["state"]
            tasks = {task["task_id"]: task for task in self._airflow.task_instances(dag, run_id)}
            for name, task in tasks.items():
                if name in STAGES:
                    self._show(dag, run_id, task, board)
            self._show_approval(dag, run_id, tasks.get("approve"), board)
            if state == "success":
                return
            if state == "failed":
                self._raise_failure(dag, run_id, tasks)
            time.sleep(_POLL_SECONDS)

    def _show(self, dag: str, run_id: str, task: dict[str, Any], board: Board) -> None:
        name, state = task["task_id"], task["state"]
        if name in self._finished:
            return
        if state in ("running", "deferred"):
            board.state(name, "running")
            self._show_progress(dag, run_id, name, board)
        elif state == "success":
            self._finished.add(name)
            manifest = self._store.of_run(self._run_key).get(name)
            is_reused = manifest is not None and manifest.run_key != self._run_key
            board.state(name, "reused" if is_reused else "done", task.get("duration"))
        elif state in ("failed", "upstream_failed"):
            board.state(name, "failed" if state == "failed" else "waiting")

    def _show_approval(self, dag: str, run_id: str, task: dict[str, Any] | None, board: Board) -> None:
        """Say that a person is waited for, and what the answer was; each once."""
        state = task["state"] if task else None
        if state not in ("awaiting_input", "success") or state in self._told:
            return
        self._told.add(str(state))
        if state == "awaiting_input":
            page = f"{self._platform.dag_run_url(dag, run_id)}/tasks/approve/required_actions"
            told = f"waits for approval in Airflow: {page}"
        else:
            answer = self._airflow.xcom(dag, run_id, "approve", "return_value") or {}
            what = "approved, becomes champion" if answer.get("is_approved") else "rejected, stays challenger"
            told = f"{what}; by {answer.get('by', 'a person')}. {answer.get('note') or ''}".rstrip()
        board.console.print(f"{dag:9} {'approve':12} {told}", highlight=False, soft_wrap=True)

    def _show_progress(self, dag: str, run_id: str, name: str, board: Board) -> None:
        submission_id = self._airflow.xcom(dag, run_id, name, "submission_id")
        if not submission_id:
            return
        for line in reversed(self._platform.job_log(submission_id).splitlines()[-200:]):
            told = progress.parse(line)
            if told is not None and told.stage == name:
                board.progress(told)
                return

    def _handover(self, dag: str, run_id: str, next_dag: str) -> str:
        """Wait for the DAG run that a DAG's asset event starts."""
        deadline = time.monotonic() + _HANDOVER_SECONDS
        while time.monotonic() < deadline:
            started = self._airflow.runs_started_by(dag, run_id, next_dag)
            if started:
                return started[0]
            time.sleep(_POLL_SECONDS)
        raise QwenCoreError(
            f"DAG '{dag}' finished, but '{next_dag}' did not start within {_HANDOVER_SECONDS:.0f} s. "
            f"Is it paused in Airflow? See: qwen-core logs scheduler"
        )

    def _raise_failure(self, dag: str, run_id: str, tasks: dict[str, dict[str, Any]]) -> None:
        failed = [task for task in tasks.values() if task["state"] == "failed"]
        if not failed:
            raise StageFailedError(dag, f"DAG run {run_id} failed without a failed task; see {dag} in Airflow")
        task = failed[0]
        name = task["task_id"]
        submission_id = self._airflow.xcom(dag, run_id, name, "submission_id")
        log = self._platform.job_log(submission_id) if submission_id else ""
        log = log or self._airflow.task_log(dag, run_id, name, task["try_number"])
        tail = "\n".join("  | " + line for line in log.splitlines()[-_LOG_LINES:])
        raise StageFailedError(
            name,
            f"the end of its log:\n{tail}\n\n"
            f"  whole log    {self._platform.dag_run_url(dag, run_id)}/tasks/{name}\n"
            f"  mend, then   qwen-core run --run-key {self._run_key} (finished stages are not run again)",
        )
