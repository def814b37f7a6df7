"""The services: how each is started and how one sees that it is well."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from qwen_core.errors import PlatformError
from qwen_core.platform.database import tracking_database
from qwen_core.platform.settings import Home, Settings

_HOST = "127.0.0.1"
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class Service:
    """One process of the platform.

    Attributes:
        name: As `logs NAME` takes it.
        command: Runs in the foreground.
        port: Where it is asked.
        path: HTTP path that answers when it is well.
        headers: What the question carries.
        component: Its name in Airflow's report on health, for one that does not listen.
        says_well: Reads the answer, where a good HTTP status does not say enough.
        goes_first: Whether what comes after it waits until it is well.
        variables: Of its own, beside the environment that all share.
    """

    name: str
    command: list[str]
    port: int
    path: str
    headers: Callable[[], dict[str, str]] = dict
    component: str = ""
    says_well: Callable[[Any], bool] | None = None
    goes_first: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The service's page; empty where it has none."""
        return "" if self.component else f"http://{_HOST}:{self.port}"

    def ask(self) -> httpx.Response | None:
        """Ask the service, or the API server for its report; `None` where nobody answers."""
        try:
            address = f"http://{_HOST}:{self.port}{self.path}"
            return httpx.get(address, headers=self.headers(), timeout=_ANSWER_SECONDS, trust_env=False)
        except httpx.HTTPError:
            return None

    def judge(self, answer: httpx.Response | None) -> bool | None:
        """Tell from an answer whether the service is well; `None` where nobody can tell, as who should tell is down."""
        told = None
        if answer is not None and answer.status_code < 400:
            with contextlib.suppress(ValueError):
                told = answer.json() if self.component or self.says_well else {}
        if not self.component:
            return told is not None and (self.says_well is None or self.says_well(told))
        if told is None or (told.get("metadatabase") or {}).get("status") != "healthy":
            return None
        return (told.get(self.component) or {}).get("status") == "healthy"


def health_of(services: Iterable[Service]) -> dict[str, bool | None]:
    """Ask how services are; those that share a report are asked for once.

    Args:
        services: The services.

    Returns:
        By name: well, not well, or `None` where nobody can tell.
    """
    answers: dict[tuple[int, str], httpx.Response | None] = {}
    told = {}
    for service in services:
        place = (service.port, service.path)
        if place not in answers:
            answers[place] = service.ask()
        told[service.name] = service.judge(answers[place])
    return told


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
        *(f"--dashboard-port={settings.ray_dashboard_port}", "--dashboard-agent-listen-port=0"),
        # Free ports for all that people never ask, so that another Ray on this machine is no trouble. Ray Client's
        # server cannot be switched off, nor take a free one.
        *("--metrics-export-port=0", "--min-worker-port=0", "--max-worker-port=0"),
        f"--ray-client-server-port={settings.ray_port + 1}",
        *(f"--num-cpus={cpus}", f"--object-store-memory={settings.object_store_bytes}"),
        f"--temp-dir={ray_folder(home)}",
    ]
    mlflow_command = [
        *(mlflow, "server", "--host", _HOST, "--port", str(settings.mlflow_port), "--workers", "1"),
        # Artifacts by their path, not through the server: a stage that is run without the platform finds them too.
        "--no-serve-artifacts",
        *("--default-artifact-root", home.folder("mlflow/artifacts").as_uri()),
    ]
    token = home.credentials()["ray_token"]

    def heard(name: str, component: str, *options: str) -> Service:
        command = [airflow, name, *options]
        return Service(name, command, settings.airflow_port, "/api/v2/monitor/health", component=component)

    return [
        Service(
            "ray",
            ray_command,
            settings.ray_dashboard_port,
            # Not just the dashboard, which answers before the node is there, and after its raylet has died.
            "/api/v0/nodes?limit=1000",
            lambda: {"Authorization": f"Bearer {token}"},
            says_well=_has_living_node,
            # Its daemons give each other 30 s (fixed in Ray's code), too little beside five other starting services
            # on two cores.
            goes_first=True,
        ),
        Service(
            "mlflow",
            mlflow_command,
            settings.mlflow_port,
            "/health",
            # Not on the command line: everyone on the machine could read the password.
            variables={"MLFLOW_BACKEND_STORE_URI": tracking_database(home, settings)},
        ),
        Service(
            "api-server",
            [airflow, "api-server", "--host", _HOST, "--port", str(settings.airflow_port)],
            settings.airflow_port,
            "/api/v2/version",
        ),
        # Their log servers would listen to the network, and nobody asks them: the logs are on this disk.
        heard("scheduler", "scheduler", "--skip-serve-logs"),
        heard("dag-processor", "dag_processor"),
        heard("triggerer", "triggerer", "--skip-serve-logs"),
    ]


def _has_living_node(told: Any) -> bool:
    """Read Ray's list of nodes."""
    try:
        return any(node["state"] == "ALIVE" for node in told["data"]["result"]["result"])
    except (KeyError, TypeError):
        return False


def ray_folder(home: Home) -> Path:
    """Choose Ray's session folder: below the home, or a short link to it where socket paths would grow too long."""
    place = home.folder("ray")
    if len(str(place)) <= 40:  # Ray appends about 60 characters, a Unix socket's path has 107
        return place
    link = _ray_link(place)
    with contextlib.suppress(FileExistsError):
        link.symlink_to(place)
    if not link.is_symlink() or link.readlink() != place or link.lstat().st_uid != os.getuid():
        raise PlatformError(f"{link} is somebody else's; remove it, or choose a shorter path: --home PATH")
    return link


def _ray_link(place: Path) -> Path:
    return Path("/tmp") / f"qwen-core-{hashlib.sha256(str(place).encode()).hexdigest()[:12]}"


def remove_ray_link(home: Home) -> None:
    """Take the short link away, where there is one."""
    place = home.path / "ray"
    link = _ray_link(place)
    if link.is_symlink() and link.readlink() == place:
        link.unlink()


def clean_ray_folder(home: Home) -> None:
    """Remove what earlier Ray sessions left, all but the last one's logs; none may be running."""
    sessions = sorted(path for path in home.folder("ray").glob("session_2*") if path.is_dir())
    for session in sessions[:-1]:
        shutil.rmtree(session, ignore_errors=True)
