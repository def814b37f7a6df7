"""The watcher with services that are a sleep or a small server: deaths, hangs, giving up, its own death."""

import os
import signal
import sys

import httpx
import psutil
import pytest

from qwen_core.platform import processes
from qwen_core.platform.services import Service, health_of, services_of
from qwen_core.platform.settings import Home
from qwen_core.platform.watcher import MAX_DEATHS, Watched, Watcher, read_supervision
from tests.platform.platforms import free_ports, until

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
SERVER = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1"]


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    yield home
    processes.stop_all(home, is_harsh=True)


def _watcher(home, *services, hang_seconds=60):
    return Watcher(home, list(services), dict(os.environ), hang_seconds)


def _service(name, command=SLEEP, **arguments):
    return Service(name, command, 1, "/", **arguments)


def _end(home, name, signal_number=signal.SIGKILL):
    """End a service's process, and wait until its parent has something to take note of."""
    leader = processes.find(home, name)
    leader.send_signal(signal_number)
    until(lambda: processes.find(home, name) is None, 10, "it ends", every=0.02)


def test_killed_service_is_started_again_after_a_pause_and_told(home):
    watcher = _watcher(home, _service("demo"))
    watcher.tick(100.0)
    first = processes.find(home, "demo")
    _end(home, "demo")
    watcher.tick(101.0)
    assert processes.find(home, "demo") is None  # in its pause
    watcher.tick(102.1)
    assert processes.find(home, "demo").pid != first.pid
    told = read_supervision(home)["demo"]
    assert told.restarts == 1 and told.last_exit.startswith("SIGKILL: kill -9, or out of memory, ")
    assert told.state == "starting"


def test_exit_code_is_told(home):
    watcher = _watcher(home, _service("demo", [sys.executable, "-c", "import sys; sys.exit(3)"]))
    watcher.tick(0.0)
    until(lambda: processes.find(home, "demo") is None, 20, "it ends", every=0.02)
    watcher.tick(1.0)
    assert read_supervision(home)["demo"].last_exit.startswith("exit code 3, ")


def test_pauses_double_up_to_a_minute_and_many_deaths_in_a_short_time_make_it_fail():
    watched, now, pauses = Watched(_service("demo")), 0.0, []
    for _ in range(MAX_DEATHS):
        watched.note_start(now)
        watched.note_death(now, "exit code 1")
        pauses.append(watched.due - now)
        now = watched.due
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 1800]
    assert watched.state == "failed"
    watched.note_start(now)  # one try each half hour
    watched.note_death(now + 1, "exit code 1")
    assert watched.state == "failed" and watched.due == now + 1801


def test_deaths_far_apart_never_make_it_fail():
    watched, now = Watched(_service("demo")), 0.0
    for _ in range(3 * MAX_DEATHS):
        watched.note_start(now)
        now += 700
        watched.note_death(now, "exit code 1")
        assert watched.state == "down" and watched.due == now + 1
    watched.note_start(now)
    assert watched.restarts == 3 * MAX_DEATHS


def test_failed_service_that_runs_well_on_its_trial_is_forgiven():
    watched = Watched(_service("demo"), state="failed")
    watched.note_start(0.0)
    watched.note_death(700.0, "exit code 1")
    assert watched.state == "down"


def test_remains_of_a_dead_service_are_killed_before_the_next_start(home):
    child = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    watcher = _watcher(home, _service("demo", [sys.executable, "-c", child + "time.sleep(60)"]))
    watcher.tick(0.0)
    until(lambda: len(processes.all_of(home, "demo")) == 2, 20, "the child starts", every=0.05)
    _end(home, "demo")
    orphans = processes.all_of(home, "demo")
    assert len(orphans) == 1
    watcher.tick(1.0)
    assert not psutil.pid_exists(orphans[0].pid) or orphans[0].status() == psutil.STATUS_ZOMBIE


def test_service_that_stops_answering_is_killed_and_started_again(home, monkeypatch):
    monkeypatch.setattr("qwen_core.platform.services._ANSWER_SECONDS", 1.0)
    (port,) = free_ports(1)
    watcher = _watcher(home, Service("demo", [*SERVER, str(port)], port, "/"), hang_seconds=60)
    watcher.tick(0.0)
    first = processes.find(home, "demo")
    until(lambda: _tick(watcher, 1.0).state == "up", 30, "it answers", every=0.05)
    first.suspend()
    assert _tick(watcher, 30.0).state == "up"
    assert _tick(watcher, 70.0).state == "down"
    assert "hung: no good answer for 60 s" in read_supervision(home)["demo"].last_exit
    _tick(watcher, 72.0)
    assert processes.find(home, "demo").pid != first.pid


def _tick(watcher, now):
    watcher.tick(now)
    return watcher.watched[0]


def test_next_service_waits_until_the_first_is_well(home, monkeypatch):
    health = {"first": False, "second": True}
    monkeypatch.setattr(
        "qwen_core.platform.watcher.health_of", lambda services: {s.name: health[s.name] for s in services}
    )
    watcher = _watcher(home, _service("first", goes_first=True), _service("second"))
    watcher.tick(0.0)
    assert processes.find(home, "first") and processes.find(home, "second") is None
    _end(home, "first")
    watcher.tick(0.5)
    assert processes.find(home, "first") is None and processes.find(home, "second") is None  # the first is in a pause
    watcher.tick(2.0)
    assert processes.find(home, "first") and processes.find(home, "second") is None
    health["first"] = True
    watcher.tick(3.0)
    assert processes.find(home, "second")
    _end(home, "first")
    _end(home, "second")
    watcher.tick(4.0)
    watcher.tick(4.5)
    health["first"] = False
    watcher.tick(5.5)
    assert processes.find(home, "second")  # only at the first start


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"data": {"result": {"result": [{"state": "DEAD"}, {"state": "ALIVE"}]}}}, True),
        ({"data": {"result": {"result": [{"state": "DEAD"}]}}}, False),  # the raylet died, the dashboard lives on
        ({"data": {"result": {"result": []}}}, False),
        ({"data": None}, False),
    ],
)
def test_ray_is_well_where_a_node_lives(home, answer, expected):
    ray = services_of(home, home.settings())[0]
    assert ray.judge(httpx.Response(200, json=answer)) is expected
    assert ray.judge(httpx.Response(200, text="no JSON")) is False
    assert ray.judge(None) is False


def test_another_watcher_takes_over_what_runs_with_its_history(home):
    watcher = _watcher(home, _service("demo"))
    watcher.tick(0.0)
    _end(home, "demo")
    watcher.tick(1.0)
    watcher.tick(3.0)
    running = processes.find(home, "demo").pid
    heir = _watcher(home, _service("demo"))
    heir._take_over(0.0)
    heir.tick(1.0)
    assert processes.find(home, "demo").pid == running
    assert read_supervision(home)["demo"].restarts == 1 and read_supervision(home)["demo"].state == "up"
    assert read_supervision(home, watcher=1) == {}


def test_airflows_parts_are_not_judged_while_the_server_that_reports_on_them_is_down(monkeypatch):
    (port,) = free_ports(1)
    services = [
        Service("api-server", [], port, "/version"),
        Service("scheduler", [], port, "/health", component="scheduler"),
        Service("triggerer", [], port, "/health", component="triggerer"),
    ]
    assert health_of(services) == {"api-server": False, "scheduler": None, "triggerer": None}


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({"metadatabase": {"status": "healthy"}, "scheduler": {"status": "healthy"}}, True),
        ({"metadatabase": {"status": "healthy"}, "scheduler": {"status": "unhealthy"}}, False),
        ({"metadatabase": {"status": "healthy"}, "scheduler": {"status": None}}, False),
        ({"metadatabase": {"status": "unhealthy"}, "scheduler": {"status": "unhealthy"}}, None),
    ],
)
def test_part_of_airflow_is_judged_by_the_report(report, expected):
    scheduler = Service("scheduler", [], 1, "/health", component="scheduler")
    assert scheduler.judge(httpx.Response(200, json=report)) is expected
    assert scheduler.judge(httpx.Response(500)) is None


def test_watcher_process_ends_alone_and_leaves_its_children(home):
    script = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    processes.start(home, "watcher", [sys.executable, "-c", script + "; time.sleep(60)"], dict(os.environ))
    leader = processes.find(home, "watcher")
    child = until(leader.children, 20, "the child starts", every=0.02)[0]
    assert processes.stop_leader(home, "watcher") == 1
    assert processes.stop_leader(home, "watcher") == 0
    assert child.is_running() and child.status() != psutil.STATUS_ZOMBIE
