"""Engines and sessions. SQLite or PostgreSQL, by DATABASE_URL alone; nothing connects at import.

A process opens DATABASE_CONNECTIONS connections to PostgreSQL at most: two carry the engine's own
statements (`control.py`), two the sessions of sync tasks, and the rest async sessions.
"""

from __future__ import annotations

import select
import sqlite3
import time
from threading import Lock
from typing import Any, Self, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from app.config import get_settings
from app.core.outages import mark_errors_of

# A server that vanished is noticed within 20 s, not after the system's hours. Keepalives watch a
# connection that waits for an answer; the user timeout is for a request that nobody acknowledges.
NETWORK_LIMITS = {
    "connect_timeout": 5,
    "keepalives_idle": 8,
    "keepalives_interval": 4,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON")
SQLITE_PATIENCE = 30  # seconds that a write waits for the one before it
CONTROL_CONNECTIONS = 2
SYNC_CONNECTIONS = 2


class Base(DeclarativeBase):
    """The models' base; `app/models/` names them all."""


class SqliteConnection(sqlite3.Connection):
    """SQLite has one writer: those of this process take turns here.

    In SQLite's own queue they would sleep and look again, for up to 100 ms each time.
    """

    _turn = Lock()
    _has_turn = False

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(factory or SqliteCursor)

    def await_turn(self) -> None:
        """Before the first write of a transaction. Raises sqlite3.OperationalError."""
        if not self._has_turn:
            if not self._turn.acquire(timeout=SQLITE_PATIENCE):
                raise sqlite3.OperationalError("database is locked")
            self._has_turn = True

    def pass_turn(self) -> None:
        if self._has_turn and not self.in_transaction:
            self._has_turn = False
            self._turn.release()

    def commit(self) -> None:
        super().commit()
        self.pass_turn()

    def rollback(self) -> None:
        super().rollback()
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


def async_url(url: str) -> URL:
    """psycopg serves sync and async; SQLite needs aiosqlite for async."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return parsed.set(drivername="sqlite+aiosqlite")
    return parsed.set(drivername="postgresql+psycopg")


def sync_url(url: str) -> URL:
    parsed = async_url(url)
    return parsed.set(drivername=parsed.drivername.removesuffix("+aiosqlite"))


settings = get_settings()
ASYNC_URL = async_url(settings.database_url)
IS_SQLITE = ASYNC_URL.get_backend_name() == "sqlite"


def pool(size: int) -> dict[str, Any]:
    """An engine's options for at most so many connections."""
    options: dict[str, Any] = {"pool_size": size, "max_overflow": 0, "pool_timeout": 30}
    if IS_SQLITE:
        # IMMEDIATE: a transaction that began by reading could not be upgraded to write.
        options["connect_args"] = {
            "factory": SqliteConnection,
            "isolation_level": "IMMEDIATE",
            "timeout": SQLITE_PATIENCE,
        }
    else:
        options["connect_args"] = NETWORK_LIMITS
    return options


def _prepare_sqlite(connection: Any, record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in SQLITE_PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_before_savepoint(connection: Connection, name: str) -> None:
    """Without it, RELEASE of a SAVEPOINT that began the transaction would commit."""
    driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    if not driver.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _note_the_time(connection: Any, record: ConnectionPoolEntry) -> None:
    record.info["opened"] = time.monotonic()


def _renew_closed(connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
    """What the server has closed can be read from at once; to ask it would be a round trip."""
    driver: Any = record.driver_connection
    if driver.closed or record.info["opened"] < _silent or _is_readable(driver.fileno()):
        raise DisconnectionError("closed by the server, or silent")


_silent = 0.0  # when one of this process' connections was last found silent, monotonic


def distrust_open_connections() -> None:
    """Who forgot one connection on the way to the server has forgotten others: renew them all."""
    global _silent
    _silent = time.monotonic()


def _is_readable(file: int) -> bool:
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(0))


_engines: list[AsyncEngine | Engine] = []

E = TypeVar("E", AsyncEngine, Engine)


def owned(engine: E) -> E:
    """Prepare an engine of this process, by its database, and close it with the others."""
    target = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    if IS_SQLITE:
        event.listen(target, "connect", _prepare_sqlite)
        event.listen(target, "savepoint", _begin_before_savepoint)
    else:
        event.listen(target, "connect", _note_the_time)
        event.listen(target, "checkout", _renew_closed)
    mark_errors_of(target)
    _engines.append(engine)
    return engine


async def dispose() -> None:
    """Close every pooled connection of this process."""
    for engine in _engines:
        if isinstance(engine, AsyncEngine):
            await engine.dispose()
        else:
            engine.dispose()


_sync = settings.max_jobs if IS_SQLITE else SYNC_CONNECTIONS
_async = settings.database_connections - CONTROL_CONNECTIONS - SYNC_CONNECTIONS
# On SQLite requests wait their turn in the pool, not for the file's lock. A job that has written
# keeps no request from reading, since jobs have connections of their own.
async_engine = owned(create_async_engine(ASYNC_URL, **pool(1 if IS_SQLITE else _async)))
jobs_engine = (
    owned(create_async_engine(ASYNC_URL, **pool(settings.max_jobs))) if IS_SQLITE else async_engine
)
sync_engine = owned(create_engine(sync_url(settings.database_url), **pool(_sync)))

AsyncSessionLocal = async_sessionmaker(async_engine, expire_on_commit=False)
JobSession = async_sessionmaker(jobs_engine, class_=AsyncSession, expire_on_commit=False)
SyncSessionLocal = sessionmaker(sync_engine, class_=Session, expire_on_commit=False)
