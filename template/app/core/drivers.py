"""What every connection to SQLite or PostgreSQL does beyond its driver's own work.

SQLite allows one writer at a time: the writers of this process take turns here. A connection is
given up if its server is silent, or if nobody waits any more for the thread that uses it. A value
that Python can't read (garbage, an infinite date) must not fail a statement that reads others, too.
"""

from __future__ import annotations

import os
import re
import select
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Self
from weakref import WeakSet

import structlog
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format, TransactionStatus
from psycopg.pq.abc import PGcancelConn
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

log = structlog.get_logger(__name__)

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
        self._has_turn = self._has_turn or self._turn.acquire(timeout=PATIENCE)
        if not self._has_turn:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorname = "SQLITE_BUSY"  # as SQLite says when another process writes
            raise error

    def begin(self) -> None:
        """Begin a transaction where Python's driver doesn't: before a `WITH` and a SAVEPOINT.

        Else a `WITH` would commit by itself, and RELEASE would commit what follows its SAVEPOINT.
        """
        if self.isolation_level and not self.in_transaction:
            self.cursor().execute(f"BEGIN {self.isolation_level}")

    @contextmanager
    def used(self) -> Iterator[None]:
        """Run a statement in the body. Raises sqlite3.ProgrammingError after `give_up`."""
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
        """From another thread, interrupt the statement, roll back, and refuse further ones."""
        self._is_given_up = True
        with suppress(sqlite3.ProgrammingError):  # it is closed
            self.interrupt()
            self._undo()

    def _refuse(self) -> None:
        if self._is_given_up:
            self._undo()
            raise sqlite3.ProgrammingError(CLOSED)

    def _undo(self) -> None:
        """Roll back. If a statement runs, its own thread does so after it."""
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
        if verb.startswith(("WITH", "SAVEPOINT")):
            self.connection.begin()
        with self.connection.used():
            return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> Self:
        self.connection.await_turn()
        with self.connection.used():
            return super().executemany(sql, parameters)


def _verb(sql: str) -> str:
    """How the statement begins, in capitals. For a `WITH` that only reads it is SELECT."""
    verb = sql.lstrip()[:9].upper()
    if verb.startswith(("WITH", "--", "/*")):
        bare = ASIDE.sub(" ", sql).strip().upper()
        verb = "SELECT" if bare.startswith("WITH") and not CHANGES.search(bare) else bare[:9]
    return verb


def renew_closed(connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
    """Replace a connection that the server closed: its socket is readable. A query is slower."""
    driver: Any = record.driver_connection
    if driver.closed or record.info["opened"] < _oldest or _is_readable(driver.fileno()):
        raise DisconnectionError("closed by the server, or too old")


_oldest = 0.0  # a monotonic time; connections that were opened before it are renewed


def renew_open_connections() -> None:
    """Open each connection of this process anew before its next use."""
    global _oldest
    _oldest = time.monotonic()


def _is_readable(file: int) -> bool:
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(0))


given_up: WeakSet[Any] = WeakSet()  # the drivers' connections


def give_up(driver: Any) -> None:
    """End a connection that is silent, so that whoever waits for its answer gets an error at once.

    PostgreSQL would notice it only when the statement ends, and keep its locks until then. So the
    statement is cancelled, too.
    """
    if isinstance(driver, SqliteConnection):
        driver.give_up()
        return
    with suppress(Exception), socket.socket(fileno=os.dup(driver.fileno())) as mine:
        renew_open_connections()  # what has lost one of them may have lost the others as well
        given_up.add(driver)
        mine.shutdown(socket.SHUT_RD if _begins_to_cancel(driver, mine) else socket.SHUT_RDWR)


def _begins_to_cancel(driver: Any, mine: socket.socket) -> bool:
    """Cancel the statement that runs, if any, in a thread: the network may be what is silent."""
    with suppress(Exception):
        if driver.pgconn.transaction_status == TransactionStatus.ACTIVE:
            log.warning("statement.given_up")
            what = driver.pgconn.cancel_conn(), mine.dup()
            threading.Thread(target=_cancel, args=what, name="cancel", daemon=True).start()
            return True
    return False


def _cancel(statement: PGcancelConn, mine: socket.socket) -> None:
    """Cancel, then end the connection: a pooler cancels nothing for a client that is gone."""
    with mine, suppress(Exception):
        try:
            statement.blocking()  # for `connect_timeout` at most
        finally:
            mine.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Unreadable:
    """Stands in place of a value that can't be read."""

    reason: str

    def __bool__(self) -> bool:
        return False


def tolerate(adapters: AdaptersMap) -> None:
    """Have PostgreSQL's driver read garbage as `Unreadable`, too."""
    for name in ("timestamptz", "json", "jsonb"):
        oid = adapters.types[name].oid
        if strict := adapters.get_loader(oid, Format.TEXT):
            adapters.register_loader(oid, _tolerant(strict))


def _tolerant(strict: Any) -> type[Loader]:
    class TolerantLoader(Loader):
        def __init__(self, oid: int, context: Any = None) -> None:
            super().__init__(oid, context)
            self._strict = strict(oid, context)

        def load(self, data: Buffer) -> Any:
            try:
                return self._strict.load(data)
            except Exception as error:
                return unreadable(error)

    return TolerantLoader


def unreadable(error: Exception) -> Unreadable:
    return Unreadable(str(error)[:200] or type(error).__name__)
