"""PostgreSQL for Airflow and MLflow: addresses, secrets, a server that refuses."""

import json
import stat

import pytest
from click.testing import CliRunner

from qwen_core.cli.platform import status, up
from qwen_core.errors import MissingDependencyError, PlatformError
from qwen_core.platform import Platform, processes
from qwen_core.platform.database import in_own_schema, prepare_databases, tracking_database
from qwen_core.platform.environment import environment
from qwen_core.platform.services import services_of
from qwen_core.platform.settings import Home, Settings
from tests.platform.platforms import free_ports

SECRET = "hush-hush"
URL = f"postgresql://tester:{SECRET}@127.0.0.1:1/airflow?sslmode=disable"


def test_one_driver_serves_both_of_airflows_engines_and_mlflow_has_a_schema_of_its_own(tmp_path):
    home, settings = Home(tmp_path), Settings(airflow_database=URL, mlflow_database=in_own_schema(URL))
    env = environment(home, settings)
    expected = URL.replace("postgresql:", "postgresql+psycopg:")
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"] == expected
    assert tracking_database(home, settings) == f"{expected}&options=-csearch_path%3Dmlflow"


def test_sqlite_is_the_default(tmp_path):
    env = environment(Home(tmp_path), Settings())
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"sqlite:///{tmp_path}/airflow/airflow.db?timeout=60"
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC" not in env
    assert tracking_database(Home(tmp_path), Settings()) == f"sqlite:///{tmp_path}/mlflow/mlflow.db"


def test_password_is_in_no_command_line_and_in_a_private_file_alone(tmp_path):
    platform = Platform(tmp_path)
    platform.configure(airflow_database=URL, mlflow_database=in_own_schema(URL))
    for service in services_of(platform.home, platform.settings):
        assert SECRET not in " ".join(service.command)
    file = tmp_path / "platform.yaml"
    assert SECRET in file.read_text() and stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)  # by hand
    assert Platform(tmp_path).settings.airflow_database == URL
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_server_that_does_not_answer_is_told_without_the_password(tmp_path):
    (port,) = free_ports(1)
    url = f"postgresql://tester:{SECRET}@127.0.0.1:{port}/airflow"
    airflow, mlflow, dashboard, ray = free_ports(4)
    ports = ("--airflow-port", airflow, "--mlflow-port", mlflow, "--ray-dashboard-port", dashboard, "--ray-port", ray)
    done = CliRunner().invoke(up, ["--home", str(tmp_path), "--database", url, *map(str, ports)])
    assert isinstance(done.exception, PlatformError)
    told = str(done.exception) + done.output
    assert f"PostgreSQL does not take us at postgresql://tester@127.0.0.1:{port}/airflow" in told
    assert "Is the server up" in told and SECRET not in told and done.exception.__cause__ is None
    assert processes.all_of(Home(tmp_path)) == []


def test_other_databases_are_refused_and_the_address_is_not_shown(tmp_path):
    with pytest.raises(PlatformError, match="only PostgreSQL is known") as caught:
        Platform(tmp_path).configure(airflow_database=f"mysql://tester:{SECRET}@host/db")
    assert SECRET not in str(caught.value)
    (tmp_path / "platform.yaml").write_text(f"mlflow_database: mysql://tester:{SECRET}@host/db\n")
    with pytest.raises(PlatformError, match=r"mlflow_database: .*only PostgreSQL is known") as caught:
        Platform(tmp_path)
    assert SECRET not in str(caught.value)


def test_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"qwen-core\[postgres\]"):
        prepare_databases(Settings(airflow_database=URL))


def test_folder_of_more_dags_is_a_bundle_beside_ours(tmp_path):
    env = environment(Home(tmp_path), Settings(more_dags="/my/dags"))
    bundles = json.loads(env["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    assert [(bundle["name"], bundle["kwargs"]) for bundle in bundles] == [
        ("dags-folder", {}),
        ("more-dags", {"path": "/my/dags"}),
    ]


def test_status_tells_of_restarts(tmp_path):
    home = Home(tmp_path)
    services = {"ray": {"state": "failed", "restarts": 8, "last_exit": "exit code 1, 2026-01-02 03:04:05 UTC"}}
    (home.folder("run") / "supervision.json").write_text(json.dumps({"watcher": 1, "services": services}))
    done = CliRunner().invoke(status, ["--home", str(tmp_path)])
    assert done.exit_code == 1
    assert "restarts 8; it ended last by exit code 1, 2026-01-02 03:04:05 UTC" in done.output
    told = {service["name"]: service for service in json.loads(_json_of(tmp_path))}
    assert told["ray"]["state"] == "failed" and told["ray"]["restarts"] == 8
    assert told["mlflow"]["state"] == "down" and told["watcher"]["state"] == "down"


def _json_of(home):
    return CliRunner().invoke(status, ["--home", str(home), "--json"]).output
