"""The databases of Airflow and MLflow: SQLite files below the home, or PostgreSQL.

One PostgreSQL database serves both: Airflow takes its schema `public`, MLflow the schema `mlflow`, for both keep
their versions in a table of one name.
"""

from __future__ import annotations

import importlib.util
import urllib.parse

from qwen_core.errors import MissingDependencyError, PlatformError
from qwen_core.platform.settings import Home, Settings

_DRIVER = "postgresql+psycopg"
_MLFLOW_SCHEMA = "mlflow"


def airflow_database(home: Home, settings: Settings) -> str:
    """Name Airflow's database.

    Args:
        home: The platform's folder.
        settings: Names a PostgreSQL database, or none.

    Returns:
        As SQLAlchemy takes it.
    """
    if settings.airflow_database is None:
        # Airflow's services share one file: on a busy machine the driver's own 5 s of waiting are too few.
        return f"sqlite:///{home.folder('airflow')}/airflow.db?timeout=60"
    return _with_driver(settings.airflow_database)


def tracking_database(home: Home, settings: Settings) -> str:
    """Name MLflow's database; see `airflow_database`."""
    if settings.mlflow_database is None:
        return f"sqlite:///{home.folder('mlflow')}/mlflow.db"
    return _with_driver(settings.mlflow_database)


def in_own_schema(url: str) -> str:
    """Point MLflow at its schema of a database that it shares with Airflow.

    Args:
        url: PostgreSQL's address.

    Returns:
        The address with the schema.
    """
    parts = urllib.parse.urlsplit(url)
    query = [*urllib.parse.parse_qsl(parts.query), ("options", f"-csearch_path={_MLFLOW_SCHEMA}")]
    return urllib.parse.urlunsplit(parts._replace(query=urllib.parse.urlencode(query)))


def prepare_databases(settings: Settings) -> None:
    """See that PostgreSQL answers, and make MLflow's schema where there is none.

    Args:
        settings: Of the platform; nothing is done where it names no PostgreSQL.

    Raises:
        MissingDependencyError: The driver is not installed.
        PlatformError: The server does not answer, or refuses us.
    """
    urls = {
        name: url for name in ("airflow_database", "mlflow_database") if (url := getattr(settings, name)) is not None
    }
    if not urls:
        return
    if importlib.util.find_spec("psycopg") is None:
        raise MissingDependencyError("PostgreSQL needs a driver: pip install 'qwen-core[postgres]'")
    for name, url in urls.items():
        _prepare(name, url)


def _prepare(name: str, url: str) -> None:
    import psycopg

    plain = "postgresql:" + url.split(":", 1)[1]
    try:
        with psycopg.connect(plain, connect_timeout=10) as connection:
            if f"search_path={_MLFLOW_SCHEMA}" in urllib.parse.unquote(url):
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_MLFLOW_SCHEMA}")
    except psycopg.Error as error:
        raise PlatformError(
            f"PostgreSQL does not take us at {_without_password(plain)} ({name}): {str(error).strip()}\n"
            f"Is the server up, does the database exist, are user and password right?"
        ) from None  # the chain would show the address with its password


def _without_password(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}@" if parts.username else ""
    return f"postgresql://{user}{place}{parts.path}"


def _with_driver(url: str) -> str:
    return f"{_DRIVER}:{url.split(':', 1)[1]}"
