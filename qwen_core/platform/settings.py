"""Where the platform lives: folders, ports and generated credentials below one home folder.

.qwen/
  platform.yaml        ports and sizes, edited by hand or by `up --port`
  credentials.json     mode 600, generated once
  artifacts/ mlflow/ airflow/ cache/ logs/ run/
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml
from pydantic import ValidationError

from qwen_core.config.base import Count, Section
from qwen_core.errors import PlatformError


class Settings(Section):
    """Ports and sizes of the platform on one machine."""

    airflow_port: Count = 8080
    mlflow_port: Count = 5000
    ray_dashboard_port: Count = 8265
    ray_port: Count = 6379
    object_store_bytes: Count = 800_000_000
    cpus: Count | None = None


class Home:
    """The platform's folder."""

    def __init__(self, path: str | Path | None) -> None:
        self.path = Path(path or os.environ.get("QWEN_CORE_HOME") or ".qwen").absolute()

    def folder(self, name: str) -> Path:
        """Make a folder below the home; only its owner can look into the home."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = self.path / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    def settings(self) -> Settings:
        """Read `platform.yaml`, where there is one.

        Raises:
            PlatformError: It has faults.
        """
        path = self.path / "platform.yaml"
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
        try:
            return Settings.model_validate(tree or {})
        except ValidationError as error:
            faults = "\n".join(f"  - {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise PlatformError(f"{path} has faults:\n{faults}") from error

    def save_settings(self, settings: Settings) -> None:
        """Write `platform.yaml`."""
        self.folder(".")
        text = yaml.safe_dump(settings.model_dump(), sort_keys=False)
        (self.path / "platform.yaml").write_text(text, encoding="utf-8")

    def credentials(self) -> dict[str, str]:
        """Read the credentials; generate them at the first call."""
        path = self.folder(".") / "credentials.json"
        if not path.is_file():
            made = {
                "airflow_user": "admin",
                "airflow_password": secrets.token_urlsafe(18),
                "airflow_jwt_secret": secrets.token_urlsafe(32),
                "airflow_api_secret": secrets.token_urlsafe(32),
                "airflow_fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
                "ray_token": secrets.token_hex(32),
            }
            write_secret(path, json.dumps(made, indent=1))
        loaded: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return loaded


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def check_resources(home: Path) -> list[str]:
    """Check memory and disk.

    Args:
        home: Its disk is looked at.

    Returns:
        Warnings.

    Raises:
        PlatformError: There is too little disk to start at all.
    """
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    disk = psutil.disk_usage(str(place)).free
    if disk < 3e9:
        raise PlatformError(
            f"only {disk / 1e9:.1f} GB are free on the disk of {home}; 3 GB are needed. Free some space, or put the "
            f"state elsewhere: --home PATH"
        )
    memory = psutil.virtual_memory().available
    if memory < 6e9:
        return [
            f"only {memory / 1e9:.1f} GB of memory are available; the demo wants 6 GB. Close other programs, or lower "
            f"parallel.num_workers (--set parallel.num_workers=1)"
        ]
    return []


def loopback_without_proxy(environ: Mapping[str, str]) -> dict[str, str]:
    """Name the variables by which HTTP clients reach this machine itself without a proxy.

    Args:
        environ: The variables that there are; what they except already is kept.

    Returns:
        `NO_PROXY` and `no_proxy`.
    """
    told = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    hosts = [host for host in told.split(",") if host]
    hosts += [host for host in ("127.0.0.1", "localhost") if host not in hosts]
    return dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(hosts))


def environment(home: Home, settings: Settings) -> dict[str, Any]:
    """Compose the environment of every service.

    Args:
        home: The platform's folder.
        settings: Its ports.

    Returns:
        Variables; nothing of another Airflow, Ray or MLflow leaks in.
    """
    secret = home.credentials()
    airflow = home.folder("airflow")
    code = Path(__file__).resolve().parents[2]
    foreign = ("AIRFLOW", "RAY_", "MLFLOW_", "_AIRFLOW")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    password_file = airflow / "passwords.json"
    write_secret(password_file, json.dumps({secret["airflow_user"]: secret["airflow_password"]}))
    token_file = home.path / "ray_token"
    write_secret(token_file, secret["ray_token"])
    connection = {
        "conn_type": "ray",
        "host": "127.0.0.1",
        "port": settings.ray_dashboard_port,
        "password": secret["ray_token"],
        "extra": {"mlflow_url": f"http://127.0.0.1:{settings.mlflow_port}"},
    }
    api = f"http://127.0.0.1:{settings.airflow_port}"
    return {
        **kept,
        **loopback_without_proxy(kept),
        "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', '')}",
        "PYTHONPATH": str(code),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLCONFIGDIR": str(home.folder("cache/matplotlib")),
        "TORCH_EXTENSIONS_DIR": str(home.folder("cache/torch_extensions")),
        "TRITON_CACHE_DIR": str(home.folder("cache/triton")),
        "QWEN_CORE_STORE": str(home.folder("artifacts")),
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{settings.mlflow_port}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its workers for evaluation jobs take 2 GB
        "DO_NOT_TRACK": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Else Ray replaces 127.0.0.1 by the machine's address, and listens to the network.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",  # ten lines each few seconds; the stages tell their own progress
        "RAY_DEDUP_LOGS": "0",
        "RAY_COLOR_PREFIX": "0",
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it would bring each progress line twice
        "AIRFLOW_HOME": str(airflow),
        "AIRFLOW__CORE__DAGS_FOLDER": str(code / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # The guess by words would pass over our files: their wiring lies in operators/pipeline.py.
        "AIRFLOW__CORE__DAG_DISCOVERY_SAFE_MODE": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "2",  # stages wait in the triggerer; each further worker takes 50 MB
        # So often a worker looks whether its task has ended; the default, 5 s, is idle time at the end of each.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        # No name, no log server to ask: the logs are read from the disk, on this machine.
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "builtins.str",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__FERNET_KEY": secret["airflow_fernet_key"],
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{api}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{secret['airflow_user']}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(password_file),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{airflow}/airflow.db",
        "AIRFLOW__API__BASE_URL": api,
        "AIRFLOW__API__SECRET_KEY": secret["airflow_api_secret"],
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": secret["airflow_jwt_secret"],
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "60",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",  # a changed file is read at once all the same
        "AIRFLOW__TRIGGERER__CAPACITY": "50",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(airflow / "logs"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW_CONN_RAY_DEFAULT": json.dumps(connection),
    }
