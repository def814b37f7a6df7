"""A small server that speaks Ray's Jobs and State API, and what an operator needs of Airflow."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

TOKEN = "secret-token"


class SmallRay:
    """Jobs by submission id; a job's `logs` grow as a test wants."""

    def __init__(self):
        self.jobs = {}
        self.submissions_to_refuse = 0
        self.answer_to_all = None  # (code, text) of a proxy before a dead dashboard
        self.asked = []
        self.stops_to_forget = 0

    def add(self, submission_id, **told):
        job = {"status": "RUNNING", "logs": "", "message": "", "driver_exit_code": None, "driver_node_id": "n"}
        self.jobs[submission_id] = {**job, "submission_id": submission_id, "metadata": {}, "entrypoint": "", **told}
        return self.jobs[submission_id]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self, code, body):
        raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _is_stopped_here(self):
        self.ray.asked.append((self.command, self.path))
        if self.ray.answer_to_all:
            return self._answer(*self.ray.answer_to_all) or True
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(403, "Forbidden: Invalid authentication token") or True
        return False

    def do_GET(self):
        if self._is_stopped_here():
            return
        address = urlsplit(self.path)
        parts = address.path.strip("/").split("/")
        if parts == ["api", "version"]:
            self._answer(200, {"ray_version": "2.60.0"})
        elif address.path == "/api/jobs/":
            self._answer(200, list(self.ray.jobs.values()))
        elif parts[:3] == ["api", "v0", "logs"]:
            asked = {name: values[0] for name, values in parse_qs(address.query).items()}
            name = asked["filename"].removeprefix("job-driver-").removesuffix(".log")
            log, lines = self.ray.jobs[name]["logs"], int(asked["lines"])
            self._answer(200, log if lines < 0 else "".join(log.splitlines(keepends=True)[-lines:]))
        elif parts[2] in self.ray.jobs:
            self._answer(200, {name: value for name, value in self.ray.jobs[parts[2]].items() if name != "logs"})
        else:
            self._answer(404, f"Job {parts[2]} does not exist")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if self._is_stopped_here():
            return None
        parts = self.path.strip("/").split("/")
        if parts[-1] == "stop":
            return self._stop(parts[2])
        if self.ray.submissions_to_refuse:
            self.ray.submissions_to_refuse -= 1
            return self._answer(500, "No available agent to submit job, please try again later.")
        if body["submission_id"] in self.ray.jobs:
            return self._answer(500, "ValueError: already exists")
        if body["entrypoint"] == "refuse me":
            return self._answer(400, f"TypeError: what is {body}?")
        self.ray.add(**body, start_time=len(self.ray.jobs))
        return self._answer(200, {"submission_id": body["submission_id"]})

    def _stop(self, submission_id):
        job = self.ray.jobs.get(submission_id)
        if job is None:
            return self._answer(404, f"Job {submission_id} does not exist")
        if self.ray.stops_to_forget:
            self.ray.stops_to_forget -= 1
        elif job["status"] in ("PENDING", "RUNNING"):
            job["status"] = "STOPPED"
        return self._answer(200, {"stopped": True})

    def log_message(self, *_):
        pass


class Instance(SimpleNamespace):
    def xcom_push(self, key, value):
        self.pushed[key] = value

    def xcom_pull(self, key):
        return self.pushed.get(key)

    def get_task_states(self, dag_id, run_ids, task_ids):
        return {run_ids[0]: {task_ids[0]: self.airflow_state}} if self.airflow_state else {}


@pytest.fixture
def context():
    def make(try_number=1, run_started="2026-01-01", **more):
        given = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "airflow_state": "running", **more}
        instance = Instance(try_number=try_number, pushed={}, **given)
        return {"ti": instance, "params": {}, "dag_run": SimpleNamespace(run_id="r", start_date=run_started)}

    return make


@pytest.fixture
def connection(monkeypatch):
    """Set Airflow's connection."""

    def use(**fields):
        monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps({"conn_type": "ray", **fields}))

    return use


@pytest.fixture
def ray(monkeypatch, connection):
    from operators.ray_hook import RayHook

    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"ray": SmallRay()}))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    port = server.server_port
    connection(host="127.0.0.1", port=port, password=TOKEN, extra={"mlflow_url": "http://mlflow"})

    async def aget_connection(_, conn_id):
        return RayHook.get_connection(conn_id)

    monkeypatch.setattr(RayHook, "aget_connection", classmethod(aget_connection))
    monkeypatch.setattr("operators.ray_hook._BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr("operators.ray_hook._STOP_AGAIN_SECONDS", 0.2)
    server.RequestHandlerClass.ray.port = port
    yield server.RequestHandlerClass.ray
    server.shutdown()
    server.server_close()


@pytest.fixture
def shown(monkeypatch):
    """The lines that a trigger or operator writes into the task's log."""
    from operators.ray_operator import RayJobOperator
    from operators.ray_trigger import RayJobTrigger

    lines = []

    def write(text, *args):
        lines.append(text % args if args else text)

    log = SimpleNamespace(info=write, warning=write, error=write)
    monkeypatch.setattr(RayJobTrigger, "log", log)
    monkeypatch.setattr(RayJobOperator, "log", log)
    monkeypatch.setattr("operators.ray_trigger._MIN_SECONDS", 0)
    return lines
