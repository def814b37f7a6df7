"""A platform on free ports, on SQLite or PostgreSQL, that the tests of this folder share: never two at once."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.platform.platforms import Platforms, postgres_tools, serve_postgres


@pytest.fixture(scope="session")
def platforms(tmp_path_factory):
    platforms = Platforms(tmp_path_factory)
    yield platforms
    platforms.end()


@pytest.fixture(scope="session")
def postgres():
    """Address of a throw-away PostgreSQL server; the password is real."""
    tools = postgres_tools()
    pytest.importorskip("psycopg", reason="the driver is not installed: pip install 'qwen-core[postgres]'")
    if tools is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="qwen-core-pg-"))
    try:
        yield from serve_postgres(tools, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def database(request):
    """The database that an indirect parameter names; PostgreSQL is skipped where there is none."""
    return request.getfixturevalue("postgres") if request.param == "postgresql" else None
