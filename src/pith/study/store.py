"""Where pieces of measurements are kept, and who is taking which: a database that a kill at any moment leaves whole."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from sqlalchemy import Connection, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError

from pith.core import PithWarning, StoreError, user_path
from pith.measure import Answer, Costs, from_json, to_json
from pith.study.database import CLAIM, PIECE, address, now, opened, prepare, public_place

P = TypeVar("P", Costs, Answer)

SOON = 5.0
"""Seconds of waiting for the database after which the user learns of it."""


class Store:
    """The pieces of measurements, each under the key of what was asked; a stored one is never overwritten.

    Several processes may hold one store, and claim the pieces that they take. A claim lasts as long as its worker gives
    a sign of life.

    Args:
        where: a folder, in which a SQLite file is made when it is not there, or the URL of a PostgreSQL database such
            as `postgresql+psycopg://USER@HOST/DATABASE`.
        patience: seconds to wait for another process that is writing.
        say: given a line for the user while the database is waited for; None warns.

    Attributes:
        where: as it was given, a folder as its whole path: `Store(store.where)` opens the same one.
        place: the file, or the URL without its password, as people may see it.
        url: the database's URL with everything, for others that keep tables in it.
        shared: whether other machines reach it.

    Raises:
        StoreError: the folder cannot be made or written, its file is damaged, of another layout or of another program,
            or the database cannot be reached.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, Store(folder) as store:
        ...     store.get(Costs, "a key") is None
        True
    """

    def __init__(self, where: str | Path, patience: float = 60, say: Callable[[str], None] | None = None) -> None:
        found = address(where)
        self._patience, self._say, self._told = patience, say or _warn, -math.inf
        self.shared = not isinstance(found, Path)
        self.where = str(where) if self.shared else str(user_path(where).absolute())
        self.place = public_place(found)
        if isinstance(found, Path):
            _make_folder(found.parent)
        self._engine = opened(found, patience)
        self.url = self._engine.url.render_as_string(hide_password=False)
        try:
            with self._connected() as connection:
                prepare(connection, self.place)
        except BaseException:
            self.close()
            raise

    def get(self, kind: type[P], key: str, scores: tuple[float, float] = (-math.inf, math.inf)) -> P | None:
        """Return the piece of a measurement that is stored under the key, or None.

        Args:
            kind: the piece's class.
            key: where it is stored.
            scores: the least and the largest score that an example can have.

        Raises:
            StoreError: the database cannot be read, or what it holds there is no such piece, or one that cannot be.
        """
        with self._connected() as connection:
            result = connection.execute(select(PIECE.c.result).where(PIECE.c.key == key)).scalar()
            return None if result is None else from_json(kind, result, scores)

    def put(self, key: str, piece: Costs | Answer, question: dict[str, Any]) -> None:
        """Stores a piece; it is on the disk when this returns. One that is stored already stays.

        Args:
            key: where `get` finds it.
            piece: what was found.
            question: what was asked, for people who read the database.

        Raises:
            StoreError: the database cannot be written.
        """
        made = datetime.now(UTC).isoformat(timespec="seconds")
        row = {"key": key, "made": made, "question": json.dumps(question), "result": to_json(piece)}
        with self._connected() as connection:
            connection.execute(_insert(connection, PIECE).values(row).on_conflict_do_nothing())

    def held(self, keys: Collection[str]) -> set[str]:
        """Those of the keys under which a piece is stored."""
        with self._connected() as connection:
            return set(connection.execute(select(PIECE.c.key).where(PIECE.c.key.in_(keys))).scalars())

    def claim(self, key: str, worker: str, dead: float) -> bool:
        """Claims a piece that is not stored, for one worker at a time.

        Args:
            key: the piece's.
            worker: who claims it; no two workers have one name.
            dead: seconds without a sign of life after which another worker's claim is taken over. A sign of life that
                lies as far ahead of the database's clock counts as none: a clock was set back, or was never right.

        Returns:
            Whether it is the worker's now; where it is stored, or another one's, it is not.

        Raises:
            StoreError: the database cannot be written.
        """
        with self._connected() as connection:
            moment = now(connection)
            mine = {"worker": worker, "beat": moment}
            taken = _insert(connection, CLAIM).values(key=key, **mine).on_conflict_do_update(
                index_elements=[CLAIM.c.key], set_=mine,
                where=or_(CLAIM.c.beat < moment - dead, CLAIM.c.beat > moment + dead),
            )  # fmt: skip
            if connection.execute(taken.returning(CLAIM.c.key)).scalar() is None:
                return False
        # who stored it released it only then: a claim that succeeds after that must look again
        if not self.held([key]):
            return True
        self.release(worker)
        return False

    def beat(self, worker: str) -> None:
        """A sign of life of a worker: its claims stay its own."""
        with self._connected() as connection:
            connection.execute(update(CLAIM).where(CLAIM.c.worker == worker).values(beat=now(connection)))

    def claims(self, worker: str) -> set[str]:
        """The keys of what a worker has in hand."""
        with self._connected() as connection:
            return set(connection.execute(select(CLAIM.c.key).where(CLAIM.c.worker == worker)).scalars())

    def holder(self, key: str) -> str | None:
        """Return the worker that has claimed a piece, or had when it died; None where nobody has."""
        with self._connected() as connection:
            return connection.execute(select(CLAIM.c.worker).where(CLAIM.c.key == key)).scalar()

    def release(self, worker: str, key: str | None = None) -> None:
        """Give up what a worker has in hand, or what it had when it died; or only the piece of that key."""
        mine = CLAIM.c.worker == worker
        with self._connected() as connection:
            connection.execute(delete(CLAIM).where(mine if key is None else mine & (CLAIM.c.key == key)))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Tell the user when what is done inside waits for the database for more than a few seconds."""
        line = (
            f"{self.place} has not answered for {SOON:g} s: another program may be writing to it. A lock is waited "
            f"for up to {self._patience:g} s; if no pith command is at work there, end what keeps it locked"
        )
        timer = threading.Timer(SOON, self._tell, [line])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _tell(self, line: str) -> None:
        """Say a line, unless one was said while the same lock may still be waited for."""
        last, self._told = self._told, time.monotonic()
        if self._told - last > self._patience:
            self._say(line)

    def close(self) -> None:
        """Closes the database."""
        self._engine.dispose()

    def __len__(self) -> int:
        with self._connected() as connection:
            return int(connection.execute(select(func.count()).select_from(PIECE)).scalar_one())

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """A connection; the database's errors, and those of what a row holds, as one line that says what to do."""
        try:
            with self.waiting(), self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            why = self._line(error.orig)
            if "is locked" in why:
                why += (
                    f" (waited {self._patience:g} s); end the other program that writes to it, then run the same "
                    "command again: what is stored is kept"
                )
            if isinstance(error, OperationalError) or not isinstance(error.orig, sqlite3.Error | ValueError):
                raise StoreError(f"{self.place} cannot be read or written: {why}") from None
            raise self._damaged(why) from None
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(self._line(error)) from None

    def _damaged(self, why: str) -> StoreError:
        return StoreError(
            f"{self.place} is damaged ({why}); it was left as it is: move it away, or name another folder"
        )

    def _line(self, error: BaseException | None) -> str:
        """An error in one line, without the password."""
        line = " ".join(str(error).split())
        secret = self._engine.url.password
        return line.replace(str(secret), "***") if secret else line


def _warn(line: str) -> None:
    warnings.warn(line, PithWarning, stacklevel=2)


def _insert(connection: Connection, table: Any) -> Any:
    """An INSERT that may say what happens on a conflict, which each database does in its own dialect."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    return dialect.insert(table)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "it is a file" if os.path.isfile(folder) else error.strerror
        raise StoreError(f"{folder} cannot hold the results: {why}; name another folder") from None
