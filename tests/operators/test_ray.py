"""Hook, trigger and operator against a small server that speaks Ray's Jobs REST API."""

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import ClassVar

import pytest

pytest.importorskip("airflow")

from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

from operators.ray_hook import RayHook
from operators.ray_links import MlflowRunLink
from operators.ray_operator import RayJobOperator, submission_stem
from operators.ray_trigger import RayJobTrigger
from operators.stage_operator import entrypoint_of, settings_of
from qwen_core.errors import RayJobError

TOKEN = "secret-token"


class _Ray(BaseHTTPRequestHandler):
    jobs: ClassVar[dict] = {}
    submissions_to_refuse = 0

    def _answer(self, code, body):
        raw = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _is_allowed(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}" or self._answer(401, {})

    def do_GET(self):
        if not self._is_allowed():
            return
        parts = self.path.strip("/").split("/")
        job = self.jobs.get(parts[2])
        if job is None:
            self._answer(404, {})
        elif len(parts) == 4:
            self._answer(200, {"logs": job["logs"]})
        else:
            self._answer(200, {k: job.get(k) for k in ("status", "message", "driver_exit_code")})

    def do_POST(self):
        if not self._is_allowed():
            return
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        parts = self.path.strip("/").split("/")
        if parts[-1] == "stop":
            self.jobs[parts[2]]["status"] = "STOPPED"
        elif _Ray.submissions_to_refuse:
            _Ray.submissions_to_refuse -= 1
            return self._answer(500, {"error": "No available agent to submit job"})
        elif body["submission_id"] in self.jobs:
            return self._answer(500, {"error": "already exists"})
        else:
            self.jobs[body["submission_id"]] = {"status": "RUNNING", "logs": "", "entrypoint": body["entrypoint"]}
        self._answer(200, {})

    def log_message(self, *_):
        pass


@pytest.fixture
def ray(monkeypatch):
    _Ray.jobs, _Ray.submissions_to_refuse = {}, 0
    monkeypatch.setattr("operators.ray_hook._BACKOFF_SECONDS", 0.0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Ray)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connection = {"conn_type": "ray", "host": "127.0.0.1", "port": server.server_port, "password": TOKEN}
    connection["extra"] = {"mlflow_url": "http://mlflow"}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(connection))
    yield _Ray.jobs
    server.shutdown()


class _Instance(SimpleNamespace):
    def xcom_push(self, key, value):
        self.pushed[key] = value


def _context(try_number=1):
    instance = _Instance(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=try_number, pushed={})
    return {"ti": instance, "params": {}, "dag_run": SimpleNamespace(run_id="r")}


def _operator(**arguments):
    return RayJobOperator(task_id="t", entrypoint="python x.py", **{"quick_seconds": 0} | arguments)


def test_operator_submits_defers_and_leaves_link_and_id(ray):
    context = _context()
    with pytest.raises(TaskDeferred) as deferred:
        _operator().execute(context)
    submission_id = context["ti"].pushed["submission_id"]
    assert ray[submission_id]["entrypoint"] == "python x.py"
    assert submission_id == f"{submission_stem(context['ti'])}-1"
    assert context["ti"].pushed["ray_job_url"].endswith(f"/#/jobs/{submission_id}")
    assert deferred.value.trigger.serialize()[1]["submission_id"] == submission_id


def test_restarted_worker_and_retry_attach_to_the_running_job(ray):
    for number in (1, 1, 2):
        with pytest.raises(TaskDeferred):
            _operator().execute(_context(number))
    assert len(ray) == 1


def test_retry_after_a_failure_submits_a_new_job(ray):
    with pytest.raises(TaskDeferred):
        _operator().execute(_context(1))
    next(iter(ray.values()))["status"] = "FAILED"
    with pytest.raises(TaskDeferred):
        _operator().execute(_context(2))
    assert len(ray) == 2


def test_result_is_read_from_the_jobs_log(ray):
    context = _context()
    ray["j"] = {"status": "SUCCEEDED", "logs": "x\nqwen-core mlflow run: 3/abc\nqwen-core manifest: /s/m.json\n"}
    event = {"state": "SUCCEEDED", "message": "", "exit_code": 0}
    result = _operator().execute_complete(context, event, "j")
    assert result == {"submission_id": "j", "manifest_uri": "/s/m.json", "mlflow_run_id": "abc"}
    assert context["ti"].pushed["mlflow_run_url"] == "http://mlflow/#/experiments/3/runs/abc"


@pytest.mark.parametrize(
    ("code", "error"), [(1, AirflowException), (2, AirflowFailException), (3, AirflowFailException)]
)
def test_failure_shows_the_logs_end_and_a_wrong_recipe_is_not_retried(ray, code, error):
    ray["j"] = {"status": "FAILED", "logs": "first\nthe reason\n", "message": "exit"}
    with pytest.raises(AirflowException, match="the reason") as caught:
        _operator().execute_complete(_context(), {"state": "FAILED", "message": "exit", "exit_code": code}, "j")
    assert type(caught.value) is error


def test_submission_waits_for_the_nodes_agent_and_names_a_lasting_refusal(ray):
    _Ray.submissions_to_refuse = 2
    RayHook().submit("python x.py", "j", {}, {})
    assert ray["j"]["entrypoint"] == "python x.py"
    _Ray.submissions_to_refuse = 100
    with pytest.raises(RayJobError, match=r"refused the job 'k'.*No available agent"):
        RayHook().submit("python x.py", "k", {}, {})


def test_cleared_task_submits_anew_when_the_former_trys_job_was_stopped(ray):
    with pytest.raises(TaskDeferred):
        _operator().execute(_context(1))
    (former,) = ray
    context = _context(2)
    with pytest.raises(TaskDeferred) as deferred:
        _operator().execute(context)  # attaches: the job still runs
    assert deferred.value.kwargs["submission_id"] == former
    ray[former]["status"] = "STOPPED"
    event = {"state": "STOPPED", "message": "", "exit_code": None}
    with pytest.raises(TaskDeferred) as again:
        _operator().execute_complete(context, event, former)
    assert again.value.kwargs["submission_id"] == f"{submission_stem(context['ti'])}-2" and len(ray) == 2


def test_waiting_task_shows_the_log_answers_and_stops_its_job_when_killed(ray, caplog):
    context = _context()
    job = f"{submission_stem(context['ti'])}-1"
    ray[job] = {"status": "SUCCEEDED", "logs": "qwen-core manifest: /s/m.json\n"}
    operator = _operator(deferrable=False)
    assert operator.execute(context)["manifest_uri"] == "/s/m.json"
    ray[job]["status"] = "RUNNING"
    operator.on_kill()
    assert ray[job]["status"] == "STOPPED"


def test_quick_job_is_answered_without_deferring_and_a_longer_one_shows_its_log_once(ray):
    context = _context()
    job = f"{submission_stem(context['ti'])}-1"
    ray[job] = {"status": "RUNNING", "logs": "first\nsec"}
    operator = _operator(quick_seconds=30, poll_seconds=0.01)

    def end_the_job():
        ray[job] |= {"status": "SUCCEEDED", "logs": "first\nsecond\nqwen-core manifest: /s/m.json\n"}

    threading.Timer(0.1, end_the_job).start()
    assert operator.execute(context)["manifest_uri"] == "/s/m.json"
    ray[job] = {"status": "RUNNING", "logs": "first\nsec"}
    with pytest.raises(TaskDeferred) as deferred:
        _operator().execute(context)
    assert deferred.value.trigger.serialize()[1]["shown"] == len("first\n")


def test_refused_token_is_named(ray, monkeypatch):
    connection = json.loads(os.environ["AIRFLOW_CONN_RAY_DEFAULT"]) | {"password": "other"}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(connection))
    with pytest.raises(RayJobError, match="refuses the token"):
        RayHook().status("j")


def test_dead_cluster_is_named_with_its_address(ray, monkeypatch):
    wrong = {"conn_type": "ray", "host": "127.0.0.1", "port": 1, "password": "x"}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(wrong))
    with pytest.raises(RayJobError, match=r"does not answer at http://127\.0\.0\.1:1"):
        RayHook().status("j")


@pytest.fixture
def shown(ray, monkeypatch):
    """The lines that a trigger writes into the task's log."""

    async def connection(_, conn_id):
        return RayHook.get_connection(conn_id)

    monkeypatch.setattr(RayHook, "aget_connection", classmethod(connection))
    lines = []
    log = SimpleNamespace(info=lambda text, *a: lines.append(text % a if a else text))
    monkeypatch.setattr(RayJobTrigger, "log", log)
    monkeypatch.setattr("operators.ray_trigger._MIN_SECONDS", 0)
    return lines


async def test_trigger_streams_whole_lines_while_the_job_runs_and_the_rest_at_its_end(ray, shown, monkeypatch):
    ray["j"] = {"status": "RUNNING", "logs": "one\nha", "message": "", "driver_exit_code": 0}
    pauses = []

    async def end_the_job(_):
        pauses.append(list(shown))
        ray["j"] |= {"status": "SUCCEEDED", "logs": "one\nhalf\nlast"}

    monkeypatch.setattr("operators.ray_trigger.asyncio.sleep", end_the_job)
    events = [event async for event in RayJobTrigger("ray_default", "j").run()]
    assert pauses == [["one"]]
    assert shown == ["one", "half", "last"]
    assert [event.payload["state"] for event in events] == ["SUCCEEDED"]


async def test_trigger_goes_on_where_the_task_stopped_showing_and_lasts_a_while(ray, shown, monkeypatch):
    ray["j"] = {"status": "SUCCEEDED", "logs": "one\ntwo\n", "message": "", "driver_exit_code": 0}
    monkeypatch.setattr("operators.ray_trigger._MIN_SECONDS", 0.3)
    started = time.monotonic()
    assert [event async for event in RayJobTrigger("ray_default", "j", shown=len("one\n")).run()]
    assert shown == ["two"] and time.monotonic() - started >= 0.3


@pytest.mark.parametrize("shown_before", [0, len("qwen-core mlflow run: 3/abc\n")])
async def test_trigger_leaves_the_mlflow_link_while_the_job_runs(ray, shown, monkeypatch, shown_before):
    left = {}

    async def aset(key, value, **place):
        left[key] = (value, place["task_id"])

    monkeypatch.setattr("operators.ray_trigger.XCom", SimpleNamespace(aset=aset))
    ray["j"] = {"status": "SUCCEEDED", "logs": "qwen-core mlflow run: 3/abc\n", "message": "", "driver_exit_code": 0}
    trigger = RayJobTrigger("ray_default", "j", shown=shown_before)
    trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)
    assert [event async for event in trigger.run()]
    url = "http://mlflow/#/experiments/3/runs/abc"
    assert left == {"mlflow_run_url": (url, "t"), MlflowRunLink().xcom_key: (url, "t")}


async def test_trigger_stops_the_job_when_the_tasks_time_is_over(ray, shown):
    ray["j"] = {"status": "RUNNING", "logs": "", "message": ""}
    trigger = RayJobTrigger("ray_default", "j", deadline_seconds=time.time() - 1)
    events = [event async for event in trigger.run()]
    assert ray["j"]["status"] == "STOPPED"
    assert "execution_timeout" in events[0].payload["message"]


async def test_trigger_tells_a_cluster_that_is_gone(shown, monkeypatch):
    dead = {"conn_type": "ray", "host": "127.0.0.1", "port": 1}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(dead))
    events = [event async for event in RayJobTrigger("ray_default", "j").run()]
    assert events[0].payload["state"] == "UNREACHABLE"


async def test_persons_kill_stops_the_job_and_the_trigger_survives_a_round_trip(ray, shown):
    ray["j"] = {"status": "RUNNING", "logs": "", "message": ""}
    trigger = RayJobTrigger("ray_default", "j", poll_seconds=0)
    await trigger.on_kill()
    assert ray["j"]["status"] == "STOPPED"
    kind, arguments = trigger.serialize()
    assert kind == "operators.ray_trigger.RayJobTrigger" and RayJobTrigger(**arguments).serialize() == (kind, arguments)


def test_stage_settings_come_from_the_asset_event_or_the_form():
    form = {"recipe": "demo", "overrides": ["seed=1"], "inputs": ["/a b"], "run_key": ""}
    context = {"params": form, "dag_run": SimpleNamespace(run_id="manual__2026-01-01T00:00:00+00:00")}
    settings = settings_of(context)
    assert settings["overrides"] == ["seed=1", "ingest.inputs=[/a b]"]
    assert settings["run_key"] == "manual__2026-01-01T00-00-00-00-00"
    told = {"recipe": "mine", "overrides": [], "run_key": "k", "manifest_uri": "u"}
    context["triggering_asset_events"] = {"corpus": [SimpleNamespace(extra=told)]}
    assert settings_of(context) == {"recipe": "mine", "overrides": [], "run_key": "k"}
    assert entrypoint_of("sft", settings) == (
        "python -m qwen_core.jobs sft --recipe demo --run-key manual__2026-01-01T00-00-00-00-00 "
        "--set seed=1 --set 'ingest.inputs=[/a b]'"
    )
