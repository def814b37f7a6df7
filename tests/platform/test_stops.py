"""A running task is failed, cleared, deleted or out of time: its Ray job is stopped, and nothing is left of it."""

import datetime
import time

import psutil
import pytest

from qwen_core.platform import processes
from tests.platform.platforms import Airflow, until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.endurance, pytest.mark.timeout(1200)]

STOP_SECONDS = 15
ENDED = ("STOPPED", "FAILED", "SUCCEEDED")


@pytest.fixture
def airflow(platforms):
    airflow = Airflow(platforms.any())
    yield airflow
    for dag in ("sleeps", "sleeps_in_a_worker", "times_out"):  # what a failed test leaves
        for run in airflow.ask("GET", f"/dags/{dag}/dagRuns?state=running&state=queued")["dag_runs"]:
            airflow.ask("PATCH", f"/dags/{dag}/dagRuns/{run['dag_run_id']}", json={"state": "failed"})
    until(lambda: not _sleepers(airflow), 60, "no process is left", every=1)


def _asleep(airflow, dag, run_id, task="sleep"):
    """Wait until the job of a task sleeps: driver, child and Ray worker are there."""

    def job():
        for found in airflow.jobs(dag_id=dag, run_id=run_id, task_id=task):
            if found["status"] == "RUNNING" and "asleep" in airflow.platform.job_log(found["submission_id"]):
                return found["submission_id"]
        return None

    return until(job, 240, f"the job of {dag} {run_id} sleeps", every=1)


def _state_of(airflow, submission_id):
    return next((job["status"] for job in airflow.jobs() if job["submission_id"] == submission_id), "GONE")


def _sleepers(airflow):
    """What sleepers leave: drivers, their children, Ray workers that sleep."""
    found = []
    for process in processes.all_of(airflow.platform.home, "ray"):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "sleeper.py" in title or title.startswith(("sleep 3600", "ray::sleep")):
            found.append(f"{process.pid} {title}")
    return found


def _fail(airflow, dag, run_id):
    path = f"/dags/{dag}/dagRuns/{run_id}/taskInstances/sleep"
    airflow.ask("PATCH", path, json={"new_state": "failed"})


def _clear(airflow, dag, run_id):
    body = {"dry_run": False, "dag_run_id": run_id, "task_ids": ["sleep"], "only_failed": False}
    airflow.ask("POST", f"/dags/{dag}/clearTaskInstances", json=body)


def _delete(airflow, dag, run_id):
    """Airflow refuses to delete a DAG run that runs; a task of it may be deleted."""
    airflow.ask("DELETE", f"/dags/{dag}/dagRuns/{run_id}/taskInstances/sleep")


def _fail_run_and_delete_it(airflow, dag, run_id):
    airflow.ask("PATCH", f"/dags/{dag}/dagRuns/{run_id}", json={"state": "failed"})
    airflow.ask("DELETE", f"/dags/{dag}/dagRuns/{run_id}", expected=204)


@pytest.mark.parametrize(
    ("dag", "actions"),
    [
        ("sleeps", (_fail, _clear)),
        ("sleeps", (_delete, _fail_run_and_delete_it)),
        ("sleeps_in_a_worker", (_fail, _clear)),
        ("sleeps_in_a_worker", (_delete, _fail_run_and_delete_it)),
    ],
    ids=["deferred", "deferred, deleted", "in a worker", "in a worker, deleted"],
)
def test_failed_cleared_or_deleted_task_leaves_nothing_on_the_cluster(airflow, dag, actions):
    runs = {action: airflow.trigger(dag) for action in actions}
    jobs = {action: _asleep(airflow, dag, run_id) for action, run_id in runs.items()}
    waits = "deferred" if dag == "sleeps" else "running"
    for run_id in runs.values():
        until(lambda run_id=run_id: airflow.task(dag, run_id, "sleep")["state"] == waits, 60, f"it is {waits}")
    for action, run_id in runs.items():
        began = time.monotonic()
        action(airflow, dag, run_id)
        until(lambda action=action: _state_of(airflow, jobs[action]) in ENDED, 60, f"{action} stops the job")
        took = time.monotonic() - began
        print(f"{dag}: {action.__name__} stopped the job within {took:.1f} s")
        assert took <= STOP_SECONDS, action
        assert _state_of(airflow, jobs[action]) == "STOPPED"
    if _clear in runs:  # it runs again, as another job
        run_id = runs[_clear]

        def is_anew():
            found = {job["submission_id"] for job in airflow.jobs(dag_id=dag, run_id=run_id)}
            return found - {jobs[_clear]}

        until(is_anew, 120, "the cleared task is run anew", every=1)
        _fail(airflow, dag, run_id)
    _nothing_is_left(airflow, dag)


def test_task_that_is_out_of_time_leaves_nothing_on_the_cluster(airflow):
    run_id = airflow.trigger("times_out")
    jobs = {task: _asleep(airflow, "times_out", run_id, task) for task in ("deferred", "in_a_worker")}
    late = {}

    def are_stopped():
        for task in set(jobs) - set(late):
            if _state_of(airflow, jobs[task]) == "STOPPED":
                started = datetime.datetime.fromisoformat(airflow.task("times_out", run_id, task)["start_date"])
                late[task] = (datetime.datetime.now(datetime.UTC) - started).total_seconds() - 60
        return set(late) == set(jobs)

    until(are_stopped, 150, "the time of both is over")
    print(f"times_out: stopped so many seconds after their time: {late}")
    assert max(late.values()) <= STOP_SECONDS
    airflow.ask("PATCH", f"/dags/times_out/dagRuns/{run_id}", json={"state": "failed"})  # no further tries
    _nothing_is_left(airflow, "times_out")


def _nothing_is_left(airflow, dag):
    until(lambda: all(job["status"] in ENDED for job in airflow.jobs(dag_id=dag)), 30, "no job runs", every=1)
    until(lambda: not _sleepers(airflow), 30, "no process is left", every=1)
