"""The platform's ground without services: settings, credentials, ports, processes."""

import json
import socket
import stat
import subprocess
import sys
import time

import psutil
import pytest

from qwen_core.errors import PlatformError
from qwen_core.platform import Platform, processes
from qwen_core.platform.settings import Home, environment


def test_credentials_are_generated_once_and_private(tmp_path):
    home = Home(tmp_path / "home")
    first = home.credentials()
    assert Home(tmp_path / "home").credentials() == first
    assert stat.S_IMODE((home.path / "credentials.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    assert Home(tmp_path / "other").credentials()["ray_token"] != first["ray_token"]


def test_environment_is_of_this_home_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "foreign")
    monkeypatch.setenv("RAY_ADDRESS", "foreign:1")
    home = Home(tmp_path)
    env = environment(home, home.settings())
    assert env["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor" and "RAY_ADDRESS" not in env
    assert json.loads(env["AIRFLOW_CONN_RAY_DEFAULT"])["host"] == "127.0.0.1"
    for file in (tmp_path / "ray_token", tmp_path / "airflow" / "passwords.json"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_wrong_settings_are_named(tmp_path):
    (tmp_path / "platform.yaml").write_text("airflow_port: none\nother: 1\n")
    with pytest.raises(PlatformError, match=r"(?s)airflow_port.*other"):
        Platform(tmp_path)


def test_taken_port_is_named_with_its_holder_and_the_remedy(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        platform = Platform(tmp_path)
        platform.configure(mlflow_port=port)
        with pytest.raises(PlatformError, match=rf"port {port} for mlflow is taken by .*--mlflow-port"):
            platform.up(progress=lambda _: None)
    assert processes.all_of(platform.home) == []


def test_process_is_found_and_ended_with_its_children_and_orphans(tmp_path):
    home = Home(tmp_path)
    child = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    pid = processes.start(home, "demo", [sys.executable, "-c", child + "time.sleep(60)"], {"PATH": ""})
    deadline = time.monotonic() + 20
    while len(processes.all_of(home)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    found = processes.find(home, "demo")
    assert found is not None and found.pid == pid
    psutil.Process(pid).kill()  # the leader dies, its child is an orphan
    psutil.Process(pid).wait()
    assert processes.find(home, "demo") is None
    assert processes.stop_all(home) == 1
    assert processes.all_of(home) == []


def test_reused_process_id_is_not_taken_for_ours(tmp_path):
    home = Home(tmp_path)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    record = {"pid": other.pid, "created": psutil.Process(other.pid).create_time() - 500}
    (home.folder("run") / "ray.json").write_text(json.dumps(record))
    assert processes.find(home, "ray") is None
    assert processes.stop_all(home) == 0 and other.poll() is None
    other.kill()
    other.wait()
