"""The platform on one machine: Airflow, Ray and MLflow as processes of ours, all on loopback."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydantic import ValidationError

from qwen_core.errors import PlatformError
from qwen_core.platform import processes
from qwen_core.platform.airflow import AirflowClient
from qwen_core.platform.database import prepare_databases, tracking_database
from qwen_core.platform.environment import environment, loopback_without_proxy
from qwen_core.platform.services import Service, health_of, remove_ray_link, services_of
from qwen_core.platform.settings import Home, Settings, check_resources
from qwen_core.platform.watcher import NAME as WATCHER
from qwen_core.platform.watcher import Supervision, read_supervision
from qwen_core.stages import DAGS

_LOG_LINES = 25
_MAX_START_DEATHS = 5
_UP_SECONDS = 600.0


@dataclass(frozen=True)
class ServiceStatus:
    """What `status` tells of a service.

    Attributes:
        name: The service.
        state: `up`, `starting`, `down`, or `failed` when it died so often that the watcher tries it seldom.
        pid: Its process.
        url: Its page; empty where it has none.
        memory_bytes: Of its process and their children.
        restarts: How often the watcher has started it again since the last `down`.
        last_exit: How and when it ended last; empty where it never did.
    """

    name: str
    state: str
    pid: int | None
    url: str
    memory_bytes: int
    restarts: int = 0
    last_exit: str = ""


class Platform:
    """Starts, watches and ends the services below one home folder."""

    def __init__(self, home: str | Path | None = None) -> None:
        self.home = Home(home)
        self.settings = self.home.settings()
        os.environ.update(loopback_without_proxy(os.environ))  # MLflow's client asks the platform, not a proxy

    @property
    def store_root(self) -> str:
        """Root of the artifacts."""
        return str(self.home.folder("artifacts"))

    @property
    def airflow_url(self) -> str:
        """Airflow's pages."""
        return f"http://127.0.0.1:{self.settings.airflow_port}"

    @property
    def mlflow_url(self) -> str:
        """MLflow's pages."""
        return f"http://127.0.0.1:{self.settings.mlflow_port}"

    @property
    def tracking_uri(self) -> str:
        """MLflow's server while it runs, else its database."""
        running = processes.find(self.home, "mlflow") is not None
        return self.mlflow_url if running else tracking_database(self.home, self.settings)

    @property
    def airflow(self) -> AirflowClient:
        """A client of the platform's Airflow."""
        secret = self.home.credentials()
        return AirflowClient(self.airflow_url, secret["airflow_user"], secret["airflow_password"])

    def configure(self, **changes: int | str | None) -> None:
        """Change settings and keep them.

        Args:
            **changes: Fields of `Settings`; `None` leaves a value as it is.

        Raises:
            PlatformError: A service runs, which would not follow.
        """
        have = self.settings.model_dump()
        wanted = {name: value for name, value in changes.items() if value not in (None, have[name])}
        if not wanted:
            return
        running = [service.name for service in self._services() if processes.find(self.home, service.name)]
        if running:
            told = ", ".join(_change(name, have[name], value) for name, value in wanted.items())
            raise PlatformError(f"{told}, but {', '.join(running)} run already; end them first: qwen-core down")
        try:
            self.settings = Settings.model_validate(have | wanted)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise PlatformError(faults) from None  # the chain would show the value, and in it a password
        self.home.save_settings(self.settings)

    def prepare_local(self) -> None:
        """Point this process's caches below the home, for stages that run without the platform."""
        shared = environment(self.home, self.settings)
        for name in (
            "MPLCONFIGDIR",
            "TORCH_EXTENSIONS_DIR",
            "HF_HUB_OFFLINE",
            "RAY_USAGE_STATS_ENABLED",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
            "RAY_DATA_DISABLE_PROGRESS_BARS",
            "RAY_DEDUP_LOGS",
            "RAY_TRAIN_ENABLE_PRINT_PATCH",
        ):
            os.environ.setdefault(name, shared[name])

    def up(self, progress: Callable[[str], None] = print) -> None:
        """Start what does not run, and wait until all is well.

        Args:
            progress: Gets a line for each event.

        Raises:
            PlatformError: A port is taken, a service died or did not get well; the text says what to do.
        """
        with processes.lock(self.home):
            services = self._services()
            missing = [service for service in services if processes.find(self.home, service.name) is None]
            is_watched = processes.find(self.home, WATCHER) is not None
            if is_watched and not missing and all(health_of(services).values()):
                return
            before = _restarts(self.home)
            if missing or not is_watched:
                self._start(missing, progress)
            self._wait(services, before, progress)

    def down(self) -> int:
        """End every process of the platform, the watcher first.

        Returns:
            How many there were.
        """
        if not self.home.path.is_dir():
            return 0
        with processes.lock(self.home):
            count = processes.stop_leader(self.home, WATCHER)
            count += processes.stop_all(self.home)
        remove_ray_link(self.home)
        return count

    def status(self) -> list[ServiceStatus]:
        """Look at every service, and at the watcher."""
        services = self._services()
        running = {service.name: processes.find(self.home, service.name) for service in services}
        health = health_of(service for service in services if running[service.name] is not None)
        supervision = read_supervision(self.home)
        watcher = processes.find(self.home, WATCHER)
        told = [
            ServiceStatus(
                WATCHER,
                "up" if watcher else "down",
                watcher.pid if watcher else None,
                "",
                processes.memory_bytes(watcher, is_alone=True) if watcher else 0,
            )
        ]
        for service in services:
            process = running[service.name]
            known = supervision.get(service.name) or Supervision("down", 0, "")
            down = "failed" if known.state == "failed" else "down"
            state = down if process is None else "up" if health[service.name] else "starting"
            pid, memory = (process.pid, processes.memory_bytes(process)) if process else (None, 0)
            url, history = service.url, (known.restarts, known.last_exit)
            told.append(ServiceStatus(service.name, state, pid, url, memory, *history))
        return told

    def is_up(self) -> bool:
        """Tell whether every service is well."""
        return all(status.state == "up" for status in self.status())

    def log_path(self, service: str) -> Path:
        """Name a service's log."""
        return self.home.path / "logs" / f"{service}.log"

    def job_log(self, submission_id: str) -> str:
        """Fetch the log of a Ray job; empty where it cannot be had."""
        url = f"http://127.0.0.1:{self.settings.ray_dashboard_port}/api/jobs/{submission_id}/logs"
        headers = {"Authorization": f"Bearer {self.home.credentials()['ray_token']}"}
        try:
            answer = httpx.get(url, headers=headers, timeout=20, trust_env=False)
        except httpx.HTTPError:
            return ""
        return str(answer.json().get("logs") or "") if answer.status_code == 200 else ""

    def dag_run_url(self, dag_id: str, run_id: str) -> str:
        """Name a DAG run's page."""
        return f"{self.airflow_url}/dags/{dag_id}/runs/{run_id}"

    def _services(self) -> list[Service]:
        return services_of(self.home, self.settings)

    def _start(self, missing: list[Service], progress: Callable[[str], None]) -> None:
        """Start a watcher, which starts what is missing; what a crash left is cleared away before."""
        processes.stop_leader(self.home, WATCHER)  # one that runs may be in a pause, or have given a service up
        for warning in check_resources(self.home.path):
            progress(f"warning: {warning}")
        for service in missing:
            processes.stop_all(self.home, service.name, is_harsh=True)
        self._check_ports(missing)
        prepare_databases(self.settings)
        env = environment(self.home, self.settings)
        if missing:
            progress(f"starting {', '.join(service.name for service in missing)} (state in {self.home.path})")
            self._migrate(env)
        command = [sys.executable, "-m", "qwen_core.platform", str(self.home.path)]
        processes.start(self.home, WATCHER, command, env)

    def _check_ports(self, missing: list[Service]) -> None:
        """Refuse to start where a port is taken, naming who has it and how to choose another."""
        options = {"ray": "--ray-dashboard-port", "mlflow": "--mlflow-port", "api-server": "--airflow-port"}
        wanted = [(service.port, options[service.name], service.name) for service in missing if service.url]
        if any(service.name == "ray" for service in missing):
            # Ray Client's server takes the next one by itself
            wanted += [(self.settings.ray_port + more, "--ray-port", "ray") for more in (0, 1)]
        taken = [
            f"port {port} for {name} is taken by {holder}; "
            f"free it, or choose another: qwen-core up {option} {port + 10}"
            for port, option, name in wanted
            if (holder := processes.holder_of(port))
        ]
        if taken:
            raise PlatformError("\n".join(taken))

    def _migrate(self, env: dict[str, str]) -> None:
        """Bring Airflow's database up to date before its services ask for it.

        Once for each release of Airflow; PostgreSQL's each time, for it may be another or an empty one by now.
        """
        done = self.home.folder("airflow") / f"migrated-{importlib.metadata.version('apache-airflow')}"
        is_file = self.settings.airflow_database is None
        if is_file and done.is_file() and (self.home.path / "airflow" / "airflow.db").is_file():
            return
        log = self.home.folder("logs") / "migrate.log"
        command = [str(Path(sys.executable).parent / "airflow"), "db", "migrate"]
        with log.open("ab") as out:
            code = subprocess.run(command, env=env, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
        if code:
            raise PlatformError(f"Airflow's database could not be prepared:\n{processes.tail(log, _LOG_LINES)}")
        if is_file:
            done.touch()

    def _wait(self, services: list[Service], before: dict[str, int], progress: Callable[[str], None]) -> None:
        died: dict[str, int] = {}
        told: set[str] = set()
        deadline = time.monotonic() + _UP_SECONDS
        while True:
            self._check_alive(before, died, progress)
            well = self._well(services)
            for service in services:
                if service.name in well - told:
                    progress(f"  {service.name} is up{'  ' + service.url if service.url else ''}")
            told |= well
            waiting = [service.name for service in services if service.name not in well]
            if not waiting and self.airflow.has_dags(DAGS):
                break
            if time.monotonic() > deadline:
                raise PlatformError(_not_well(waiting))
            time.sleep(0.5)
        self.airflow.ensure_pools()

    def _well(self, services: list[Service]) -> set[str]:
        """Name the services that the watcher has seen well, and that are so now."""
        watcher = processes.find(self.home, WATCHER)
        told = read_supervision(self.home, watcher.pid if watcher else -1)
        started = [service for service in services if service.name in told and told[service.name].state == "up"]
        return {name for name, is_well in health_of(started).items() if is_well}

    def _check_alive(self, before: dict[str, int], told: dict[str, int], progress: Callable[[str], None]) -> None:
        """Tell of services that died while they started, and were started again; give up with one that goes on so."""
        if processes.find(self.home, WATCHER) is None:
            raise PlatformError(self._death(WATCHER, "died"))
        for name, restarts in _restarts(self.home).items():
            count = restarts - before.get(name, 0)
            if count >= _MAX_START_DEATHS:
                raise PlatformError(self._death(name, "dies while starting"))
            if count > told.get(name, 0):
                told[name] = count
                progress(f"  {name} died while starting, and is started again; see: qwen-core logs {name}")

    def _death(self, name: str, what: str) -> str:
        return (
            f"{name} {what}; the end of its log:\n{processes.tail(self.log_path(name), _LOG_LINES)}\n"
            f"whole log: qwen-core logs {name}; to end the others: qwen-core down"
        )


def _restarts(home: Home) -> dict[str, int]:
    return {name: told.restarts for name, told in read_supervision(home).items()}


def _change(name: str, have: object, wanted: object) -> str:
    """Describe a setting's change; addresses of databases hold passwords."""
    if name.endswith("_database"):
        return f"{name} is another one"
    return f"{name} is {have}, asked for {wanted}"


def _not_well(waiting: list[str]) -> str:
    what = f"{', '.join(waiting)} did not get well" if waiting else "Airflow did not find the DAGs"
    return (
        f"{what} within {_UP_SECONDS:.0f} s; see: qwen-core logs {next(iter(waiting), 'dag-processor')}; "
        f"to start anew: qwen-core down, then qwen-core up"
    )
