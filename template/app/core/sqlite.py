"""What every connection to SQLite does beyond its driver's own work.

SQLite allows one writer at a time: the writers of this process take turns here.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Self

from sqlalchemy import Connection
from sqlalchemy.pool import ConnectionPoolEntry

PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON")
PATIENCE = 30  # seconds that a write waits for the one before it
READS = ("SELECT", "VALUES", "PRAGMA", "EXPLAIN")
# Comments, strings and quoted names; and what a `WITH` that writes has outside of these.
ASIDE = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)|'[^']*'|\"[^\"]*\"|`[^`]*`|\[[^]]*\]", re.DOTALL)
CHANGES = re.compile(r"(?<![\w:@$])(?:INSERT|UPDATE|DELETE|REPLACE\s+INTO)\b")

CLOSED = "Cannot operate on a closed database."  # by this text SQLAlchemy knows a lost connection


class SqliteConnection(sqlite3.Connection):
    """Lets writers take turns. SQLite itself makes them sleep for up to 100 ms between tries."""

    _turn = threading.Lock()
    _has_turn = False
    _is_given_up = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A text that isn't UTF-8 must not fail the statement that reads other rows as well.
        self.text_factory = partial(str, encoding="utf-8", errors="backslashreplace")
        self._in_use = threading.Lock()

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(factory or SqliteCursor)

    def await_turn(self) -> None:
        """Wait before the first write of a transaction. Raises sqlite3.OperationalError."""
        if not self._has_turn:
            if not self._turn.acquire(timeout=PATIENCE):
                raise sqlite3.OperationalError("database is locked")
            self._has_turn = True

    def begin(self) -> None:
        """Begin a transaction before a `WITH`. Before other writes Python's driver begins it."""
        if self.isolation_level and not self.in_transaction:
            self.cursor().execute(f"BEGIN {self.isolation_level}")

    @contextmanager
    def used(self) -> Iterator[None]:
        """Make a statement in the body. Raises sqlite3.ProgrammingError if it was given up."""
        self._refuse()
        try:
            with self._in_use:
                try:
                    yield
                finally:  # a commit that failed may have ended the transaction, too
                    self._pass_turn()
        finally:
            self._refuse()

    def _pass_turn(self) -> None:
        if self._has_turn and not self.in_transaction:
            self._has_turn = False
            self._turn.release()

    def give_up(self) -> None:
        """End it from another thread. A statement that runs is interrupted, and all is undone."""
        self._is_given_up = True
        with suppress(sqlite3.ProgrammingError):  # it is closed
            self.interrupt()
            self._undo()

    def _refuse(self) -> None:
        if self._is_given_up:
            self._undo()
            raise sqlite3.ProgrammingError(CLOSED)

    def _undo(self) -> None:
        """If a statement runs, its own thread does so after it."""
        if self._in_use.acquire(blocking=False):
            try:
                super().rollback()
                self._pass_turn()
            finally:
                self._in_use.release()

    def commit(self) -> None:
        with self.used():
            super().commit()

    def rollback(self) -> None:
        with self.used():
            super().rollback()

    def close(self) -> None:
        """Roll back first: a cancelled statement with rows left to fetch would keep its lock."""
        with suppress(sqlite3.ProgrammingError):
            self.rollback()
        super().close()


class SqliteCursor(sqlite3.Cursor):
    connection: SqliteConnection

    def execute(self, sql: str, parameters: Any = (), /) -> Self:
        verb = _verb(sql)
        if not verb.startswith(READS):
            self.connection.await_turn()
        if verb.startswith("WITH"):
            self.connection.begin()
        with self.connection.used():
            return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> Self:
        self.connection.await_turn()
        with self.connection.used():
            return super().executemany(sql, parameters)


def _verb(sql: str) -> str:
    """How the statement begins, in capitals. For a `WITH` that only reads it is SELECT."""
    verb = sql.lstrip()[:8].upper()
    if verb.startswith(("WITH", "--", "/*")):
        bare = ASIDE.sub(" ", sql).strip().upper()
        verb = "SELECT" if bare.startswith("WITH") and not CHANGES.search(bare) else bare[:8]
    return verb


def prepare(connection: Any, record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def begin_before_savepoint(connection: Connection, name: str) -> None:
    """Else a SAVEPOINT would begin the transaction, and its RELEASE would commit it."""
    driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    if not driver.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
