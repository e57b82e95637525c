"""SQLite has one writer: those of this process take turns, and sleep in no queue of SQLite's."""

from __future__ import annotations

import sqlite3
from functools import partial
from threading import Lock
from typing import Any, Self

PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON")
PATIENCE = 30  # seconds that a write waits for the one before it


class SqliteConnection(sqlite3.Connection):
    """SQLite has one writer: those of this process take turns here.

    In SQLite's own queue they would sleep and look again, for up to 100 ms each time.
    """

    _turn = Lock()
    _has_turn = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A text that isn't UTF-8 must not fail the statement that reads it together with others.
        self.text_factory = partial(str, encoding="utf-8", errors="backslashreplace")

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(factory or SqliteCursor)

    def await_turn(self) -> None:
        """Before the first write of a transaction. Raises sqlite3.OperationalError."""
        if not self._has_turn:
            if not self._turn.acquire(timeout=PATIENCE):
                raise sqlite3.OperationalError("database is locked")
            self._has_turn = True

    def pass_turn(self) -> None:
        if self._has_turn and not self.in_transaction:
            self._has_turn = False
            self._turn.release()

    def commit(self) -> None:
        try:
            super().commit()
        finally:  # what failed may have ended the transaction, too
            self.pass_turn()

    def rollback(self) -> None:
        try:
            super().rollback()
        finally:
            self.pass_turn()

    def close(self) -> None:
        """A statement that was cancelled with rows left to fetch outlives it, with its lock."""
        self.rollback()
        super().close()


class SqliteCursor(sqlite3.Cursor):
    connection: SqliteConnection

    def execute(self, sql: str, parameters: Any = (), /) -> Self:
        if _writes(sql):
            self.connection.await_turn()
        try:
            return super().execute(sql, parameters)
        finally:
            self.connection.pass_turn()

    def executemany(self, sql: str, parameters: Any, /) -> Self:
        self.connection.await_turn()
        try:
            return super().executemany(sql, parameters)
        finally:
            self.connection.pass_turn()


def _writes(sql: str) -> bool:
    return not sql.lstrip()[:8].upper().startswith(("SELECT", "PRAGMA", "EXPLAIN"))
