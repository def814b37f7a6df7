"""Fixtures that all tests share."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several processes one has all that starts Ray or a platform, from the start; no module is torn apart."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group("ray" if _is_heavy(item) else str(item.path)))
    items.sort(key=lambda item: not _is_heavy(item))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Torn groups would start two platforms at once; pytest-xdist 3.8 forgets them under pytest 9.2."""
    is_grouped = getattr(session.config.option, "loadgroup", False)
    if is_grouped and session.items and "@" not in session.items[0].nodeid:
        raise pytest.UsageError("pytest-xdist cannot group tests under this pytest: install that of constraints.txt")


def _is_heavy(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in ("ray", "integration"))


@pytest.fixture
def mlflow_uri(tmp_path: Path, _mlflow_database: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty MLflow database of the test's own: a copy, for creating one takes seconds."""
    monkeypatch.setattr("qwen_core.tracking.runs._SETTLE_SECONDS", 0.2)
    copy = tmp_path / "mlflow.db"
    copy.write_bytes(_mlflow_database.read_bytes())
    return f"sqlite:///{copy}"


@pytest.fixture(scope="session")
def _mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def object_store(_moto_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of an S3-compatible server, where `s3://` leads to; tests of one session see each other's buckets."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", _moto_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return _moto_server


@pytest.fixture(scope="session")
def _moto_server() -> Iterator[str]:
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield "http://{}:{}".format(*running.get_host_and_port())
    running.stop()


@pytest.fixture(scope="session", autouse=True)
def _airflow_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Airflow reads its home when it is imported; no test may touch a real one."""
    import os

    os.environ.setdefault("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"


@pytest.fixture(scope="module", autouse=True)
def _ray_ends_with_its_module() -> Iterator[None]:
    """A stage's job leaves its Ray running, as a command's process ends with it; the next module starts its own."""
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
