"""The databases that results may lie in: a SQLite file in a folder, or PostgreSQL at a URL."""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import (
    REAL,
    URL,
    Column,
    ColumnElement,
    Connection,
    Double,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    func,
    insert,
    inspect,
    literal_column,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.exc import ArgumentError, DatabaseError
from sqlalchemy.schema import CreateTable

from pith.core import StoreError, user_path

FILE = "study.sqlite"
LAYOUT = 2
"""The layout of the tables; a larger number was written by a newer Pith, and 1 held whole measurements."""

APPLICATION = int.from_bytes(b"pith")
"""What SQLite's `application_id` holds, so that another program's database is never written into."""

POSTGRES = "postgresql+psycopg"
_CONNECT = 10  # seconds to wait for a server
_SMALLEST = 512  # bytes of SQLite's smallest page

METADATA = MetaData()
PIECE = Table(
    "pith_piece",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("made", Text, nullable=False),
    Column("question", Text, nullable=False),
    Column("result", Text, nullable=False),
    sqlite_strict=True,
)
CLAIM = Table(
    "pith_claim",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("worker", Text, nullable=False),
    Column("beat", Double().with_variant(REAL, "sqlite"), nullable=False),
    sqlite_strict=True,
)
_LAYOUT = Table("pith_layout", METADATA, Column("layout", Integer, primary_key=True))


def address(where: str | Path) -> URL | Path:
    """Where results lie: a database's URL, or the SQLite file of a folder.

    Raises:
        StoreError: it is a URL, and not of a database that can hold results.
    """
    if "://" not in str(where):
        return user_path(where, error=StoreError) / FILE
    try:
        url = make_url(str(where))
    except (ArgumentError, ValueError):
        raise StoreError(
            f"{public_place(where)} is no database's URL; allowed is {POSTGRES}://USER@HOST/DATABASE"
        ) from None
    if url.drivername not in ("postgresql", "postgres", POSTGRES):
        raise StoreError(
            f"{url.drivername} cannot hold results; allowed is a folder, or {POSTGRES}://USER@HOST/DATABASE"
        )
    return url.set(drivername=POSTGRES)


def public_place(where: URL | Path | str) -> str:
    """A folder, a file or a URL as people may see it: without what follows the user's name."""
    if isinstance(where, URL):
        return where.render_as_string(hide_password=True)
    scheme, found, rest = str(where).partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if found else str(where)


def opened(where: URL | Path, patience: float) -> Engine:
    """The engine of a database; each of its statements is a transaction of its own, durable when it returns.

    Args:
        where: as `address` gives it.
        patience: seconds to wait for another process that is writing.

    Raises:
        StoreError: the driver is not installed, or the file cannot be made or is not a complete database.
    """
    if isinstance(where, Path):
        _make_file(where)
        url = URL.create("sqlite+pysqlite", database=str(where.absolute()))
        engine = create_engine(url, isolation_level="AUTOCOMMIT", connect_args={"timeout": patience})
        event.listen(engine, "connect", _guarded)
        return engine
    try:
        settings = {"connect_timeout": _CONNECT}
        return create_engine(where, isolation_level="AUTOCOMMIT", connect_args=settings, pool_pre_ping=True)
    except ModuleNotFoundError:
        raise StoreError("PostgreSQL needs a driver: pip install pith-lm[postgres]") from None


def prepare(connection: Connection, where: str) -> None:
    """Refuses what is not ours or not whole before the first byte is written; then makes sure that we can write.

    Args:
        connection: to the database.
        where: what a message calls it.

    Raises:
        StoreError: it is another program's, or of another layout.
        SQLAlchemyError: it is damaged, locked, or cannot be written.
    """
    if connection.dialect.name == "sqlite":
        _prepare_file(connection, where)
    else:
        _prepare_server(connection, where)


def now(connection: Connection) -> ColumnElement[float]:
    """The database's own clock in seconds: what workers on several machines agree on."""
    if connection.dialect.name == "sqlite":
        return literal_column("(julianday('now') - 2440587.5) * 86400.0", Double)
    return func.extract("epoch", func.clock_timestamp()).cast(Double)


def _make_file(path: Path) -> None:
    """Make a store's SQLite file where there is none: with its tables, in one step, so that no kill leaves half of it.

    Raises:
        StoreError: it cannot be made, or what lies there is not a complete file.
    """
    try:
        state = path.stat()
    except OSError as error:
        if not isinstance(error, FileNotFoundError) or path.is_symlink():
            raise StoreError(f"{path} cannot be read or written: {error.strerror or error}") from None
    else:
        if not stat.S_ISREG(state.st_mode):
            raise StoreError(f"{path} cannot be read or written: it is not a regular file; name another folder")
        if state.st_size < _SMALLEST:  # which SQLite takes for a new file
            raise incomplete(path, f"it has {state.st_size} bytes" if state.st_size else "it is empty")
        return
    if left := [name for end in ("-wal", "-journal") if (name := path.with_name(path.name + end)).exists()]:
        if path.exists():  # another process has just made it
            return
        raise incomplete(left[0], f"{path.name} is missing beside it")
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with closing(sqlite3.connect(draft, isolation_level=None)) as made:
            for table in (PIECE, CLAIM):
                made.execute(str(CreateTable(table).compile(dialect=dialect())))
            made.execute(f"PRAGMA application_id = {APPLICATION}")
            made.execute(f"PRAGMA user_version = {LAYOUT}")
            made.execute("PRAGMA journal_mode = WAL")
        _put_in_place(draft, path)
    except (OSError, sqlite3.Error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise StoreError(f"{path} cannot be read or written: {why}") from None
    finally:
        for end in ("", "-wal", "-shm"):
            with suppress(OSError):
                draft.with_name(draft.name + end).unlink(missing_ok=True)


def _put_in_place(draft: Path, path: Path) -> None:
    """Give a file its name, unless another process gave that to its own meanwhile."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        if not path.exists():
            draft.replace(path)
    with suppress(OSError):  # not every system opens folders
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def incomplete(path: Path | str, why: str) -> StoreError:
    """Return the error for a file that holds no complete store."""
    return StoreError(
        f"{path} is not a complete store: {why}; it was left as it is: move it away, or name another folder"
    )


def _guarded(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA synchronous = FULL").close()
    # a file may come from anyone: nothing that its schema names is trusted
    connection.execute("PRAGMA trusted_schema = OFF").close()
    connection.execute("PRAGMA cell_size_check = ON").close()


def _prepare_file(connection: Connection, where: str) -> None:
    layout, application = (_pragma(connection, name) for name in ("user_version", "application_id"))
    if application != APPLICATION:
        raise StoreError(f"{where} is no results file of Pith; name another folder")
    _require_layout(layout, where)
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    # to SQLite the missing end of a page is empty space
    if found == "ok" and Path(str(connection.engine.url.database)).stat().st_size % _pragma(connection, "page_size"):
        found = "its last page is cut off"
    if found != "ok":
        raise DatabaseError("PRAGMA quick_check", None, ValueError(found))
    kinds = {str(name): kind for name, kind in connection.exec_driver_sql("SELECT name, type FROM sqlite_master")}
    if missing := [table.name for table in (PIECE, CLAIM) if kinds.get(table.name) != "table"]:
        raise incomplete(where, f"it has no table {missing[0]}")
    if foreign := [name for name, kind in kinds.items() if kind in ("trigger", "view")]:
        raise StoreError(f"{where} is no results file of Pith: it has a {kinds[foreign[0]]}; name another folder")
    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    connection.exec_driver_sql(f"PRAGMA user_version = {LAYOUT}")  # that it can be written is learned before measuring
    connection.exec_driver_sql("COMMIT")


def _prepare_server(connection: Connection, where: str) -> None:
    if inspect(connection).has_table(_LAYOUT.name):
        _require_layout(connection.execute(select(_LAYOUT.c.layout)).scalar() or 0, where)
    connection.exec_driver_sql("BEGIN")
    # of two that come first at once, one waits here and finds the tables made
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": APPLICATION})
    METADATA.create_all(connection)
    if connection.execute(select(_LAYOUT.c.layout)).scalar() is None:
        connection.execute(insert(_LAYOUT).values(layout=LAYOUT))
    connection.exec_driver_sql("COMMIT")


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())


def _require_layout(layout: int, where: str) -> None:
    if layout < 1:
        raise incomplete(where, "it has no layout")
    if layout > LAYOUT:
        raise StoreError(f"{where} was written by a newer Pith (layout {layout}, this one reads {LAYOUT})")
    if layout == 1:
        raise StoreError(
            f"{where} was written by an older Pith (layout 1, this one reads {LAYOUT}); it was left as it is: name "
            "another folder"
        )
