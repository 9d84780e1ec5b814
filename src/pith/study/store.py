"""Where measurements are kept: one SQLite file that a kill at any moment leaves whole."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pith.core import StoreError
from pith.measure import Answer, Costs, from_json, to_json

P = TypeVar("P", Costs, Answer)

FILE = "study.sqlite"
SCHEMA = 2
"""The layout of the file; a file with a larger number was written by a newer Pith and is left alone."""

APPLICATION = int.from_bytes(b"pith")
"""What SQLite's `application_id` holds, so that another program's database is never written into."""

_CREATE = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS piece (
    key TEXT PRIMARY KEY, made TEXT NOT NULL, question TEXT NOT NULL, result TEXT NOT NULL
) STRICT;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA};
COMMIT;
"""


class Store:
    """The pieces of measurements of one folder, each under the key of what was asked; a stored one is never overwritten.

    Args:
        directory: the folder; it is made when it is not there.
        patience: seconds to wait for another process that is writing.

    Raises:
        StoreError: the folder cannot be made or written, or its file is damaged, of a newer Pith or of another program.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, Store(folder) as store:
        ...     store.get("a key") is None
        True
    """

    def __init__(self, directory: str | Path, patience: float = 60) -> None:
        self.path = Path(directory) / FILE
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = "it is a file" if self.path.parent.is_file() else error.strerror
            raise StoreError(f"{self.path.parent} cannot hold the results: {why}; name another folder") from None
        with self._plainly():
            # autocommit: each statement is a transaction of its own, durable when it returns
            self._database = sqlite3.connect(self.path, timeout=patience, isolation_level=None)
        try:
            with self._plainly():
                self._open()
        except BaseException:
            self._database.close()
            raise

    def get(self, kind: type[P], key: str) -> P | None:
        """The piece of a measurement that is stored under the key, or None.

        Raises:
            StoreError: the file cannot be read, or what it holds there is no such piece.
        """
        with self._plainly():
            row = self._database.execute("SELECT result FROM piece WHERE key = ?", (key,)).fetchone()
            return None if row is None else from_json(kind, row[0])

    def put(self, key: str, piece: Costs | Answer, question: dict[str, Any]) -> None:
        """Stores a piece; it is on the disk when this returns. One that is stored already stays.

        Args:
            key: where `get` finds it.
            piece: what was found.
            question: what was asked, for people who read the file.

        Raises:
            StoreError: the file cannot be written.
        """
        made = datetime.now(UTC).isoformat(timespec="seconds")
        with self._plainly():
            row = (key, made, json.dumps(question), to_json(piece))
            self._database.execute("INSERT OR IGNORE INTO piece VALUES (?, ?, ?, ?)", row)

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def __len__(self) -> int:
        with self._plainly():
            return int(self._database.execute("SELECT count(*) FROM piece").fetchone()[0])

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _open(self) -> None:
        """Refuses what is not ours or not whole before the first byte is written; then makes sure that we can write."""
        version, application = (self._number(pragma) for pragma in ("user_version", "application_id"))
        if application != APPLICATION and self._number("schema_version"):
            raise StoreError(f"{self.path} is no results file of Pith; name another folder")
        if version > SCHEMA:
            raise StoreError(f"{self.path} was written by a newer Pith (layout {version}, this one reads {SCHEMA})")
        found = self._database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(_CREATE)

    def _number(self, pragma: str) -> int:
        return int(self._database.execute(f"PRAGMA {pragma}").fetchone()[0])

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """SQLite's errors, and those of what a row holds, as one line that says what to do."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(f"{self.path} cannot be read or written: {error}") from None
        except (sqlite3.DatabaseError, ValueError, KeyError, TypeError) as error:
            why = " ".join(str(error).split())
            raise StoreError(
                f"{self.path} is damaged ({why}); it was left as it is: move it away, or name another folder"
            ) from None
