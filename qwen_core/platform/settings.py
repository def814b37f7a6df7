"""Where the platform lives: folders, ports and generated credentials below one home folder.

.qwen/
  platform.yaml        ports, sizes and databases, edited by hand or by options of `up`; mode 600
  credentials.json     mode 600, generated once
  artifacts/ mlflow/ airflow/ cache/ logs/ run/
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from pathlib import Path
from typing import Annotated

import psutil
import yaml
from pydantic import AfterValidator, ValidationError

from qwen_core.config.base import Count, Section
from qwen_core.errors import PlatformError


def _known_database(url: str) -> str:
    """Let PostgreSQL's addresses through; the text of an error must not hold a password."""
    if url.split("://")[0] not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise ValueError("only PostgreSQL is known beside SQLite: postgresql://USER:PASSWORD@HOST:PORT/NAME")
    return url


DatabaseUrl = Annotated[str, AfterValidator(_known_database)]
"""Address of a PostgreSQL database."""


class Settings(Section):
    """The platform on one machine.

    Attributes:
        airflow_port: Airflow's pages and API.
        mlflow_port: MLflow's pages and API.
        ray_dashboard_port: Ray's dashboard and Jobs API.
        ray_port: Ray's head; the next one is taken too.
        object_store_bytes: Memory of Ray's object store.
        cpus: Ray's CPU shares [default: the machine's, at least 4].
        airflow_database: `postgresql://USER:PASSWORD@HOST/NAME` [default: a SQLite file].
        mlflow_database: Likewise; another database, or another schema of the same.
        more_dags: Folder of further DAGs, beside ours.
        hang_seconds: A service that does not answer for so long is started again.
        keep_logs_days: Older logs of tasks, of the DAG processor and of Ray are deleted.
    """

    airflow_port: Count = 8080
    mlflow_port: Count = 5000
    ray_dashboard_port: Count = 8265
    ray_port: Count = 6379
    object_store_bytes: Count = 800_000_000
    cpus: Count | None = None
    airflow_database: DatabaseUrl | None = None
    mlflow_database: DatabaseUrl | None = None
    more_dags: str | None = None
    hang_seconds: Count = 180
    keep_logs_days: Count = 30


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
            settings = Settings.model_validate(tree or {})
        except ValidationError as error:
            faults = "\n".join(f"  - {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise PlatformError(f"{path} has faults:\n{faults}") from error
        if path.is_file() and path.stat().st_mode & 0o077 and (settings.airflow_database or settings.mlflow_database):
            path.chmod(0o600)  # made by hand; a password stands in it
        return settings

    def save_settings(self, settings: Settings) -> None:
        """Write `platform.yaml`."""
        self.folder(".")
        text = yaml.safe_dump(settings.model_dump(), sort_keys=False)
        write_secret(self.path / "platform.yaml", text)

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
    os.fchmod(descriptor, 0o600)  # one that was there keeps its mode
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
