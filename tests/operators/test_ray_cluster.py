"""The operator against a real Ray head that asks for a token: submit, stream, attach, stop, and a head that dies."""

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

pytest.importorskip("airflow")
pytest.importorskip("ray")

from airflow.sdk.exceptions import TaskDeferred

from operators.ray_handover import POSITION_KEY
from operators.ray_hook import RayHook
from operators.ray_job import LOST, RayJobRequest, RayTokenError
from operators.ray_operator import RayJobOperator
from operators.ray_trigger import RayJobTrigger
from tests.operators.tls_front import tls_front, write_certificates

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]
TOKEN = "token-of-the-test-" + "x" * 32

ACTORS = """
import os, subprocess, time, ray
ray.init(log_to_driver=False)
@ray.remote(num_cpus=1)
class Worker:
    def pid(self):
        self.child = subprocess.Popen(["sleep", "600"])
        return [os.getpid(), self.child.pid]
workers = [Worker.remote() for _ in range(2)]
print("pids", os.getpid(), *sum(ray.get([worker.pid.remote() for worker in workers]), []), flush=True)
time.sleep(600)
"""


class Head:
    """A Ray head on ports of its own, which can die and come back."""

    def __init__(self, folder):
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(socket.socket()) for _ in range(3)]
            for one in held:
                one.bind(("127.0.0.1", 0))
            self._gcs, self.port, self._client = (one.getsockname()[1] for one in held)
        self._folder = folder
        self._process = None

    def start(self):
        command = [
            *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats"),
            *("--node-ip-address=127.0.0.1", f"--port={self._gcs}", "--include-dashboard=true"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={self.port}", "--dashboard-agent-listen-port=0"),
            *("--metrics-export-port=0", "--min-worker-port=0", "--max-worker-port=0", "--num-cpus=4"),
            *(f"--ray-client-server-port={self._client}", "--object-store-memory=80000000"),
            f"--temp-dir={self._folder}",
        ]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment = kept | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        log = Path(self._folder) / "head.log"
        with log.open("ab") as printed:
            self._process = subprocess.Popen(command, stdout=printed, stderr=printed, env=environment)
        until = time.monotonic() + 120
        while not RayHook(tries=1).test_connection()[0]:
            ended = self._process.poll() is not None or time.monotonic() > until
            assert not ended, f"the Ray head did not start:\n{log.read_text()[-2000:]}"
            time.sleep(0.3)

    def kill(self):
        found = [self._process, *psutil.Process(self._process.pid).children(recursive=True)]
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs([process for process in found if process is not self._process], timeout=20)
        self._process.wait()


@pytest.fixture(scope="module")
def head():
    before = os.environ.get("AIRFLOW_CONN_RAY_DEFAULT")
    # Not below pytest's folder: with the names of Ray's sockets its path would pass the 107 characters of Unix.
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        head = Head(folder)
        connection = {"conn_type": "ray", "host": "127.0.0.1", "port": head.port, "password": TOKEN}
        os.environ["AIRFLOW_CONN_RAY_DEFAULT"] = json.dumps(connection)
        head.start()
        yield head
        head.kill()
    os.environ.pop("AIRFLOW_CONN_RAY_DEFAULT") if before is None else os.environ.update(AIRFLOW_CONN_RAY_DEFAULT=before)


@pytest.fixture(autouse=True)
def _async_connection(monkeypatch):
    async def aget_connection(_, conn_id):
        return RayHook.get_connection(conn_id)

    monkeypatch.setattr(RayHook, "aget_connection", classmethod(aget_connection))


@pytest.fixture
def xcom(monkeypatch):
    kept = {}

    async def aset(key, value, **_):
        kept[key] = value

    async def aget_one(key, **_):
        return kept.get(key)

    monkeypatch.setattr("operators.ray_trigger.XCom", SimpleNamespace(aset=aset, aget_one=aget_one))
    monkeypatch.setattr("operators.ray_trigger._POSITION_SECONDS", 0.0)
    return kept


def _trigger(submission_id, **arguments):
    trigger = RayJobTrigger("ray_default", submission_id, poll_seconds=0.5, **arguments)
    trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)
    return trigger


async def _event(trigger):
    (event,) = [event.payload async for event in trigger.run()]
    return event


def _wait_for(pattern, submission_id, seconds=60):
    until = time.monotonic() + seconds
    while not (found := re.search(pattern, RayHook().log_tail(submission_id))):
        assert time.monotonic() < until, f"{pattern} did not come"
        time.sleep(0.3)
    return found


def test_job_runs_shows_its_log_and_answers(head, context, shown, tmp_path):
    script = tmp_path / "job.py"
    script.write_text("import os\nprint('hello', os.environ['WHO'])\nprint('qwen-core result: {\"n\": 3}')\n")
    operator = RayJobOperator(
        task_id="t",
        entrypoint=f"{sys.executable} {script}",
        env_vars={"WHO": "you"},
        entrypoint_num_cpus="1",
        deferrable=False,
        poll_seconds=0.5,
    )
    here = context(run_id="runs")
    assert operator.execute(here) == {"submission_id": here["ti"].pushed["submission_id"], "n": 3}
    assert "hello you" in shown and len([line for line in shown if "hello" in line]) == 1


def test_token_is_asked_for_and_a_wrong_one_refused(head, connection):
    for fields in ({"password": "wrong"}, {}):
        connection(host="127.0.0.1", port=head.port, **fields)
        with pytest.raises(RayTokenError, match="field Token"):
            RayHook(tries=1).status("j")
        assert not RayHook(tries=1).test_connection()[0]


async def test_tls_with_an_authority_and_a_client_certificate_of_ones_own(head, connection, shown, xcom, tmp_path):
    write_certificates(tmp_path)
    with tls_front(tmp_path, head.port) as port:

        def use(**extra):
            connection(host="127.0.0.1", port=port, password=TOKEN, extra={"tls": True} | extra)

        own = {"ca_file": str(tmp_path / "ca.pem"), "client_cert": str(tmp_path / "client.pem")}
        use(**own)
        assert RayHook(tries=1).test_connection()[0]
        RayHook().submit(RayJobRequest("for i in 1 2 3; do echo by tls $i; sleep 0.4; done"), "tls")
        event = await _event(_trigger("tls"))
        assert event["state"] == "SUCCEEDED" and [line for line in shown if "by tls" in line][-1] == "by tls 3"
        # A server of TLS 1.3 that misses a client's certificate just hangs up.
        for given, expected in (("client_cert", "field CA file"), ("ca_file", "TLS right?")):
            use(**{given: own[given]})
            found, told = await asyncio.to_thread(RayHook(tries=1).test_connection)
            assert not found and expected in told, told


async def test_restarted_trigger_repeats_nothing_and_loses_nothing(head, shown, xcom):
    RayHook().submit(RayJobRequest("for i in $(seq 1 120); do echo number $i; sleep 0.05; done"), "counted")
    first = asyncio.ensure_future(_event(_trigger("counted")))
    while "number 20" not in shown:
        await asyncio.sleep(0.1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert xcom[POSITION_KEY]["submission_id"] == "counted"
    event = await _event(_trigger("counted"))
    assert event["state"] == "SUCCEEDED" and event["exit_code"] == 0
    assert [line for line in shown if line.startswith("number")] == [f"number {number}" for number in range(1, 121)]


def test_stop_takes_the_driver_its_actors_and_their_children_within_15_seconds(head, tmp_path):
    script = tmp_path / "actors.py"
    script.write_text(ACTORS)
    RayHook().submit(RayJobRequest(f"trap '' TERM; {sys.executable} {script}"), "actors")
    pids = [int(pid) for pid in _wait_for(r"pids ([\d ]+)", "actors")[1].split()]
    assert len(pids) == 5 and all(psutil.pid_exists(pid) for pid in pids)
    started = time.monotonic()
    assert RayHook().stop("actors").state == "STOPPED"
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() - started < 15, [pid for pid in pids if psutil.pid_exists(pid)]
        time.sleep(0.1)


async def test_stop_of_a_job_that_has_not_begun_is_not_forgotten(head, shown):
    await asyncio.to_thread(RayHook().submit, RayJobRequest("sleep 600"), "fresh")
    await _trigger("fresh").on_kill()
    assert RayHook().status("fresh").state == "STOPPED"


async def test_job_of_a_head_that_died_is_lost_and_submitted_anew(head, context, shown, xcom):
    operator = RayJobOperator(task_id="t", entrypoint="echo begun; sleep 600", quick_seconds=0)
    here = context(run_id="dies")
    with pytest.raises(TaskDeferred) as deferred:
        await asyncio.to_thread(operator.execute, here)
    submission_id = deferred.value.kwargs["submission_id"]
    waiting = asyncio.ensure_future(_event(_trigger(submission_id)))
    while "begun" not in shown:
        await asyncio.sleep(0.1)
    await asyncio.to_thread(head.kill)
    await asyncio.to_thread(head.start)
    event = await asyncio.wait_for(waiting, 60)
    assert event["state"] == "LOST" and any("Ray answers again" in line for line in shown)
    with pytest.raises(TaskDeferred) as again:
        await asyncio.to_thread(lambda: operator.execute_complete(here, event, **deferred.value.kwargs))
    assert again.value.kwargs == {"submission_id": f"{submission_id}-1", "resubmission": 1}
    assert RayHook().status(submission_id) is LOST
    assert RayHook().stop(f"{submission_id}-1", verify_seconds=15).state == "STOPPED"
