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

from qwen_core.errors import PlatformError
from qwen_core.platform import processes
from qwen_core.platform.airflow import AirflowClient
from qwen_core.platform.services import Service, clean_ray_folder, remove_ray_link, services_of, tracking_database
from qwen_core.platform.settings import Home, Settings, check_resources, environment, loopback_without_proxy
from qwen_core.stages import DAGS

_START_SECONDS = 300.0
_LOG_LINES = 25
_TRAINING_POOL = "training"


@dataclass(frozen=True)
class ServiceStatus:
    """What `status` tells of a service; `state` is `up`, `starting` or `down`."""

    name: str
    state: str
    pid: int | None
    url: str
    memory_bytes: int


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
        return self.mlflow_url if running else tracking_database(self.home)

    @property
    def airflow(self) -> AirflowClient:
        """A client of the platform's Airflow."""
        secret = self.home.credentials()
        return AirflowClient(self.airflow_url, secret["airflow_user"], secret["airflow_password"])

    def configure(self, **changes: int | None) -> None:
        """Change ports or sizes and keep them.

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
            told = ", ".join(f"{name} is {have[name]}, asked for {value}" for name, value in wanted.items())
            raise PlatformError(f"{told}, but {', '.join(running)} run already; end them first: qwen-core down")
        self.settings = Settings.model_validate(have | wanted)
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
            if not missing and all(service.is_healthy() for service in services):
                return
            self._start(missing, progress)
            self._wait(services, progress)

    def down(self) -> int:
        """End every process of the platform.

        Returns:
            How many there were.
        """
        if not self.home.path.is_dir():
            return 0
        with processes.lock(self.home):
            count = processes.stop_all(self.home)
        remove_ray_link(self.home)
        return count

    def status(self) -> list[ServiceStatus]:
        """Look at every service."""
        told = []
        for service in self._services():
            process = processes.find(self.home, service.name)
            state = "down" if process is None else "up" if service.is_healthy() else "starting"
            pid, memory = (process.pid, processes.memory_bytes(process)) if process else (None, 0)
            told.append(ServiceStatus(service.name, state, pid, service.url, memory))
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
        """Start services, after what a crash left of them has been cleared away."""
        for warning in check_resources(self.home.path):
            progress(f"warning: {warning}")
        for service in missing:
            processes.stop_all(self.home, service.name)
        self._check_ports(missing)
        env = environment(self.home, self.settings)
        if missing:
            progress(f"starting {', '.join(service.name for service in missing)} (state in {self.home.path})")
        for service in missing:
            if service.name == "ray":
                clean_ray_folder(self.home)
            if service.name == "api-server":  # the first of Airflow's
                self._migrate(env)
            written = self._log_bytes(service.name)
            processes.start(self.home, service.name, service.command, env)
            if service.name == "ray":
                self._wait_for_ray(service, written)

    def _check_ports(self, missing: list[Service]) -> None:
        """Refuse to start where a port is taken, naming who has it and how to choose another."""
        options = {"ray": "--ray-dashboard-port", "mlflow": "--mlflow-port", "api-server": "--airflow-port"}
        wanted = [(service.port, options[service.name], service.name) for service in missing if service.url]
        if any(service.name == "ray" for service in missing):
            wanted.append((self.settings.ray_port, "--ray-port", "ray"))
        taken = [
            f"port {port} for {name} is taken by {holder}; "
            f"free it, or choose another: qwen-core up {option} {port + 10}"
            for port, option, name in wanted
            if (holder := processes.holder_of(port))
        ]
        if taken:
            raise PlatformError("\n".join(taken))

    def _migrate(self, env: dict[str, str]) -> None:
        """Bring Airflow's database up to date before its services ask for it; once for each release of Airflow."""
        done = self.home.folder("airflow") / f"migrated-{importlib.metadata.version('apache-airflow')}"
        if done.is_file() and (self.home.path / "airflow" / "airflow.db").is_file():
            return
        log = self.home.folder("logs") / "migrate.log"
        command = [str(Path(sys.executable).parent / "airflow"), "db", "migrate"]
        with log.open("ab") as out:
            code = subprocess.run(command, env=env, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
        if code:
            raise PlatformError(f"Airflow's database could not be prepared:\n{processes.tail(log, _LOG_LINES)}")
        done.touch()

    def _wait(self, services: list[Service], progress: Callable[[str], None]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        waiting = {service.name: service for service in services}
        while waiting:
            self._check_alive(services)
            for name, service in list(waiting.items()):
                if service.is_healthy():
                    del waiting[name]
                    progress(f"  {name} is up{'  ' + service.url if service.url else ''}")
            if waiting and time.monotonic() > deadline:
                raise PlatformError(
                    f"{', '.join(waiting)} did not get well within {_START_SECONDS:.0f} s; "
                    f"see: qwen-core logs {next(iter(waiting))}; to start anew: qwen-core down, then qwen-core up"
                )
            time.sleep(0.5)
        airflow = self.airflow
        airflow.ensure_pool(_TRAINING_POOL, 1)
        while not airflow.has_dags(DAGS):
            if time.monotonic() > deadline:
                raise PlatformError("Airflow has not found the DAGs; see: qwen-core logs dag-processor")
            self._check_alive(services)
            time.sleep(1)

    def _wait_for_ray(self, ray: Service, written: int) -> None:
        """Wait for Ray's node before anything else starts.

        Its daemons give each other 30 s (fixed in Ray's code), too little beside five other starting services on two
        cores; and its dashboard answers before the node is there, so only the log tells.
        """
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            self._check_alive([ray])
            with self.log_path("ray").open("rb") as log:
                log.seek(written)
                if b"Ray runtime started" in log.read():
                    return
            time.sleep(0.3)
        raise PlatformError(f"Ray did not start within {_START_SECONDS:.0f} s; see: qwen-core logs ray")

    def _log_bytes(self, service: str) -> int:
        path = self.log_path(service)
        return path.stat().st_size if path.is_file() else 0

    def _check_alive(self, services: list[Service]) -> None:
        """Name a service that died, also one that answered before: Ray's dashboard is up before its node is."""
        for service in services:
            if processes.find(self.home, service.name) is None:
                raise PlatformError(
                    f"{service.name} died while starting; the end of its log:\n"
                    f"{processes.tail(self.log_path(service.name), _LOG_LINES)}\n"
                    f"whole log: qwen-core logs {service.name}"
                )
