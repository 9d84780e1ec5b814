from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from study import postgres


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL server, without a database's name."""
    programs = postgres.programs()
    if programs is None:
        pytest.skip("no PostgreSQL is installed here")
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    with postgres.server(programs) as url:
        yield url


@pytest.fixture
def database(server: str) -> str:
    """The URL of an empty PostgreSQL database."""
    import psycopg

    name = f"study_{uuid.uuid4().hex}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
    return f"{server}/{name}"


@pytest.fixture(params=["folder", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may be: a folder, then a PostgreSQL database."""
    return str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("database")
