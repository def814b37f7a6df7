"""The environment of the platform's processes: nothing of another Airflow, Ray or MLflow leaks in."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_core.platform.database import airflow_database
from qwen_core.platform.settings import Home, Settings, write_secret


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
        "QWEN_CORE_ONE_MACHINE": "1",  # no nodes to wait for: qwen_core/train/nodes.py
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
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(_bundles(settings)),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # The guess by words would pass over our files: their wiring lies in operators/pipeline.py.
        "AIRFLOW__CORE__DAG_DISCOVERY_SAFE_MODE": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "2",  # stages wait in the triggerer; each further worker takes 50 MB
        # So often a worker looks whether its task has ended; the default, 5 s, is idle time at the end of each.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        # A task outlasts a restart of the API server: up to 10 s between 30 attempts.
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "30",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "10",
        # A dead worker's task, or a dead scheduler's, is taken up within one or two minutes instead of five.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "90",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
        # No name, no log server to ask: the logs are read from the disk, on this machine.
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "builtins.str",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__FERNET_KEY": secret["airflow_fernet_key"],
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{api}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{secret['airflow_user']}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(password_file),
        **_airflow_database(home, settings),
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


def _airflow_database(home: Home, settings: Settings) -> dict[str, str]:
    url = airflow_database(home, settings)
    # Airflow would guess asyncpg; psycopg does both.
    also = {} if settings.airflow_database is None else {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": url}
    return {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url, **also}


def _bundles(settings: Settings) -> list[dict[str, Any]]:
    """Name the folders of DAGs: ours, and one of the user's."""
    folders: dict[str, dict[str, Any]] = {"dags-folder": {}}
    if settings.more_dags:
        folders["more-dags"] = {"path": settings.more_dags}
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    return [{"name": name, "classpath": local, "kwargs": kwargs} for name, kwargs in folders.items()]
