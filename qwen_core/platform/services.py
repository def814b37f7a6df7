"""The services: how each is started and how one sees that it is well."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from qwen_core.platform.settings import Home, Settings

_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Service:
    """One process of the platform.

    Attributes:
        name: As `logs NAME` takes it.
        command: Runs in the foreground.
        port: Where it listens; `None` for one that does not.
        path: HTTP path that answers when it is well.
        url: For people.
    """

    name: str
    command: list[str]
    port: int | None = None
    path: str = "/"
    headers: Callable[[], dict[str, str]] = dict

    @property
    def url(self) -> str:
        """The service's page; empty where it has none."""
        return f"http://{_HOST}:{self.port}" if self.port else ""

    def is_healthy(self) -> bool:
        """Ask the service itself; one that does not listen is well when it runs."""
        if self.port is None:
            return True
        try:
            return httpx.get(f"{self.url}{self.path}", headers=self.headers(), timeout=5).status_code < 400
        except httpx.HTTPError:
            return False


def services_of(home: Home, settings: Settings) -> list[Service]:
    """List the services in starting order.

    Args:
        home: The platform's folder.
        settings: Its ports.

    Returns:
        The services.
    """
    folder = Path(sys.executable).parent
    airflow, mlflow, ray = (str(folder / name) for name in ("airflow", "mlflow", "ray"))
    # Ray's CPUs are shares, not cores: training workers, their driver and data tasks must fit side by side, or the
    # stage waits for itself.
    cpus = settings.cpus or max(4, os.cpu_count() or 1)
    ray_command = [
        *(ray, "start", "--head", "--block", "--disable-usage-stats", f"--node-ip-address={_HOST}"),
        *(f"--port={settings.ray_port}", "--include-dashboard=true", f"--dashboard-host={_HOST}"),
        *(f"--dashboard-port={settings.ray_dashboard_port}", f"--ray-client-server-port={settings.ray_port + 1}"),
        *("--dashboard-agent-listen-port=0", "--metrics-export-port=0"),
        *(f"--num-cpus={cpus}", f"--object-store-memory={settings.object_store_bytes}"),
        f"--temp-dir={ray_folder(home)}",
    ]
    mlflow_command = [
        *(mlflow, "server", "--host", _HOST, "--port", str(settings.mlflow_port), "--workers", "1"),
        *("--backend-store-uri", tracking_database(home), "--serve-artifacts"),
        *("--artifacts-destination", str(home.folder("mlflow/artifacts"))),
    ]
    token = home.credentials()["ray_token"]
    return [
        Service(
            "ray",
            ray_command,
            settings.ray_dashboard_port,
            "/api/version",
            lambda: {"Authorization": f"Bearer {token}"},
        ),
        Service("mlflow", mlflow_command, settings.mlflow_port, "/health"),
        Service(
            "api-server",
            [airflow, "api-server", "--host", _HOST, "--port", str(settings.airflow_port)],
            settings.airflow_port,
            "/api/v2/version",
        ),
        Service("scheduler", [airflow, "scheduler"]),
        Service("dag-processor", [airflow, "dag-processor"]),
        Service("triggerer", [airflow, "triggerer"]),
    ]


def tracking_database(home: Home) -> str:
    """Name MLflow's database."""
    return f"sqlite:///{home.folder('mlflow')}/mlflow.db"


def ray_folder(home: Home) -> Path:
    """Choose Ray's session folder: below the home, or a short link to it where socket paths would grow too long."""
    place = home.folder("ray")
    if len(str(place)) <= 40:  # Ray appends about 60 characters, a Unix socket's path has 107
        return place
    link = Path("/tmp") / f"qwen-{abs(hash_of(place)) % 10**8:08d}"
    if not link.is_symlink():
        link.symlink_to(place)
    return link


def hash_of(path: Path) -> int:
    """Hash a path, the same in every process."""
    import zlib

    return zlib.crc32(str(path).encode())
