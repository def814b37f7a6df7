"""The platform's ground without services: settings, credentials, ports, processes."""

import json
import socket
import stat
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from qwen_core.errors import PlatformError
from qwen_core.platform import Platform, processes
from qwen_core.platform.environment import environment, loopback_without_proxy
from qwen_core.platform.services import ray_folder
from qwen_core.platform.settings import Home, check_resources


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
    pid = processes.start(home, "demo", [sys.executable, "-c", child + "time.sleep(60)"], {"PATH": ""}).pid
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
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    record = home.folder("run") / "ray.json"
    pid = processes.start(home, "ray", [sys.executable, "-c", "pass"], {"PATH": ""}).pid
    told = json.loads(record.read_text())
    psutil.Process(pid).wait()
    for change in ({"pid": other.pid}, {"pid": other.pid, "boot": "an earlier one"}):
        record.write_text(json.dumps(told | {"started_seconds": told["started_seconds"] - 500} | change))
        assert processes.find(home, "ray") is None
        assert processes.stop_all(home) == 0 and other.poll() is None
    other.kill()
    other.wait()


def test_process_is_found_after_the_wall_clock_was_set(tmp_path, monkeypatch):
    home = Home(tmp_path)
    pid = processes.start(home, "ray", [sys.executable, "-c", "import time; time.sleep(60)"], {"PATH": ""}).pid
    linux = pytest.importorskip("psutil._pslinux")
    booted = linux.boot_time()
    for jump in (-86_400, 86_400):
        monkeypatch.setattr(linux, "boot_time", lambda jump=jump: booted + jump)
        assert processes.find(home, "ray").pid == pid
    told = iter([booted, booted + 3600, booted + 3600, booted + 3600])  # set while we look
    monkeypatch.setattr(linux, "boot_time", lambda: next(told))
    assert processes.find(home, "ray").pid == pid
    monkeypatch.undo()
    assert processes.stop_all(home, is_harsh=True) == 1


def test_one_services_remains_are_ended_without_the_others(tmp_path):
    home = Home(tmp_path)
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    first, second = (processes.start(home, name, sleep, {"PATH": ""}).pid for name in ("ray", "mlflow"))
    assert processes.stop_all(home, "ray") == 1
    assert not psutil.pid_exists(first) or psutil.Process(first).status() == psutil.STATUS_ZOMBIE
    assert processes.find(home, "mlflow").pid == second
    assert processes.stop_all(home) == 1


def test_second_up_at_the_same_time_is_refused(tmp_path):
    platform = Platform(tmp_path)
    with processes.lock(platform.home), pytest.raises(PlatformError, match="another qwen-core"):
        platform.up(progress=lambda _: None)


def test_ports_of_a_running_platform_cannot_be_changed(tmp_path):
    platform = Platform(tmp_path)
    processes.start(platform.home, "ray", [sys.executable, "-c", "import time; time.sleep(60)"], {"PATH": ""})
    with pytest.raises(PlatformError, match="mlflow_port is 5000, asked for 5001, but ray run already"):
        platform.configure(mlflow_port=5001)
    platform.configure(mlflow_port=5000)  # nothing changes
    assert platform.down() == 1
    platform.configure(mlflow_port=5001)
    assert Platform(tmp_path).settings.mlflow_port == 5001


def test_too_little_disk_is_refused_and_too_little_memory_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2e9))
    assert "only 2.0 GB of memory" in check_resources(tmp_path / "not" / "there")[0]
    monkeypatch.setattr(psutil, "disk_usage", lambda path: SimpleNamespace(free=1e9))
    with pytest.raises(PlatformError, match=r"only 1\.0 GB are free.*--home"):
        check_resources(tmp_path / "not" / "there")


def test_exceptions_from_the_proxy_are_kept_and_loopback_is_added():
    assert loopback_without_proxy({"no_proxy": "intern"})["NO_PROXY"] == "intern,127.0.0.1,localhost"


def test_long_path_gets_a_short_link_for_rays_sockets_and_down_takes_it_away(tmp_path):
    home = Home(tmp_path / ("long" * 20))
    link = ray_folder(home)
    assert len(str(link)) <= 40 and link.resolve() == home.path / "ray" and ray_folder(home) == link
    Platform(home.path).down()
    assert not link.is_symlink()
