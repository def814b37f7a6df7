"""A platform on free ports, on SQLite or PostgreSQL, that the tests of this folder share: never two at once."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from qwen_core.platform import Platform, processes
from qwen_core.platform.database import in_own_schema

TINY = str(Path(__file__).parents[1] / "recipes" / "tiny.yaml")
DAGS_OF_TESTS = str(Path(__file__).parent / "dags")


def _new_database(server):
    import psycopg

    name = f"qwen_{secrets.token_hex(4)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server.rpartition('/')[0]}/{name}"


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Platforms:
    """Starts a platform when a test asks for one, and ends the one before where that is another."""

    def __init__(self, folders):
        self._folders, self._running, self._server = folders, None, None

    def any(self):
        """The one that runs; on SQLite, where none does."""
        if self._running is None:
            return self.get(None)
        self._running.up(progress=print)
        return self._running

    def get(self, server, is_fresh=False):
        """One on SQLite (`None`), or on this PostgreSQL server, started; a fresh one has no history."""
        if self._running is None or is_fresh or server != self._server:
            self.end()
            self._running, self._server = self._make(server), server
        self._running.up(progress=print)
        return self._running

    def end(self):
        if self._running is not None:
            self._running.down()
            assert processes.all_of(self._running.home) == []
        self._running = None

    def _make(self, server):
        database = _new_database(server) if server else None
        platform = Platform(self._folders.mktemp("p"))
        airflow, mlflow, dashboard = free_ports(3)
        platform.configure(
            airflow_port=airflow,
            mlflow_port=mlflow,
            ray_dashboard_port=dashboard,
            ray_port=20_000 + airflow % 10_000,
            more_dags=DAGS_OF_TESTS,
            airflow_database=database,
            mlflow_database=in_own_schema(database) if database else None,
        )
        return platform


def databases(default):
    """Databases on which a module runs; `QWEN_CORE_TEST_DATABASES=sqlite,postgresql` asks for both."""
    told = os.environ.get("QWEN_CORE_TEST_DATABASES", default)
    return [pytest.param(name.strip(), id=name.strip()) for name in told.split(",")]


def best_database():
    """PostgreSQL where its server is installed: Airflow's own advice for all but trials."""
    return "postgresql" if postgres_tools() else "sqlite"


def postgres_tools():
    """The newest server's folder; Debian keeps it out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    named = shutil.which("initdb")
    return found[-1].parent if found else Path(named).resolve().parent if named else None


def serve_postgres(tools, folder):
    # The server refuses to run as root; Debian's package brings the user.
    who = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    if who:
        shutil.chown(folder, "postgres", "postgres")
    password, (port,) = secrets.token_hex(16), free_ports(1)
    secret = folder / "password"
    secret.write_text(password)
    if who:
        shutil.chown(secret, "postgres", "postgres")
    data = str(folder / "data")

    def call(tool, *arguments):
        command = [str(tools / tool), *arguments]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=folder, **who)

    call("initdb", "-D", data, "-U", "tester", "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8")
    options = f"-p {port} -k {folder} -h 127.0.0.1 -c fsync=off -c max_connections=200"
    call("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql://tester:{password}@127.0.0.1:{port}/postgres"
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")


def until(what, seconds, told, every=0.3):
    """Ask until the answer is true; fail with what was waited for."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {told}"
        time.sleep(every)
    return answer


class Airflow:
    """What the tests ask of a platform's Airflow, beside what the command line needs."""

    def __init__(self, platform):
        self.platform, self.client = platform, platform.airflow

    def ask(self, method, path, expected=200, **arguments):
        answer = self.client._request(method, f"/api/v2{path}", **arguments)
        assert answer.status_code == expected, f"{method} {path}: {answer.status_code} {answer.text[:1000]}"
        return answer.json() if answer.content else None

    def trigger(self, dag, **conf):
        until(lambda: self.client.has_dags((dag,)), 120, f"DAG {dag} is there", every=1)
        return self.client.trigger(dag, conf)

    def task(self, dag, run_id, task):
        return self.ask("GET", f"/dags/{dag}/dagRuns/{run_id}/taskInstances/{task}")

    def wait_end(self, dag, run_id, seconds=300):
        def state():
            told = self.client.dag_run(dag, run_id)["state"]
            return told if told in ("success", "failed") else None

        return until(state, seconds, f"{dag} {run_id} ends", every=1)

    def last_log(self, dag, run_id, task):
        """The log of a task's last try."""
        return self.client.task_log(dag, run_id, task, self.task(dag, run_id, task)["try_number"])

    def jobs(self, **metadata):
        """Ray's job list: those whose metadata say so."""
        told = [(job, job.get("metadata") or {}) for job in self._ray("")]
        return [job for job, said in told if all(said.get(key) == value for key, value in metadata.items())]

    def job_log(self, submission_id):
        return self._ray(f"{submission_id}/logs")["logs"]

    def _ray(self, path):
        url = f"http://127.0.0.1:{self.platform.settings.ray_dashboard_port}/api/jobs/{path}"
        token = self.platform.home.credentials()["ray_token"]
        for is_last in (False, False, True):
            try:
                with httpx.Client(timeout=60, trust_env=False) as client:
                    return client.get(url, headers={"Authorization": f"Bearer {token}"}).json()
            except httpx.TransportError:  # a busy dashboard hangs up
                if is_last:
                    raise
