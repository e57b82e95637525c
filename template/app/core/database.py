"""Engines and sessions. SQLite or PostgreSQL, by DATABASE_URL alone; nothing connects at import."""

from __future__ import annotations

import select
import sqlite3
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from app.config import get_settings

# A server that vanished is noticed within half a minute, not after the system's hours.
KEEPALIVES = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON")


class Base(DeclarativeBase):
    """The models' base; `app/models/` names them all."""


class SqliteConnection(sqlite3.Connection):
    """A statement that was cancelled with rows left to fetch outlives `close`, with its lock."""

    def close(self) -> None:
        self.rollback()
        super().close()


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


def _pool(pool_size: int) -> dict[str, Any]:
    options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": 30}
    if IS_SQLITE:
        # IMMEDIATE: a transaction that began by reading could not be upgraded to write.
        options["connect_args"] = {
            "factory": SqliteConnection,
            "isolation_level": "IMMEDIATE",
            "timeout": 30,
        }
    else:
        options["connect_args"] = KEEPALIVES
    return options


# SQLite has one writer: requests wait their turn in the pool, not for the file's lock.
async_engine = create_async_engine(ASYNC_URL, **_pool(1 if IS_SQLITE else 10))
# Jobs have connections of their own, two more than run: heartbeats must never wait for a job's.
# Most of what they do is one statement, which commits by itself: one round trip instead of three.
_single = {} if IS_SQLITE else {"isolation_level": "AUTOCOMMIT"}
_several = {} if IS_SQLITE else {"isolation_level": "READ COMMITTED"}
jobs_engine = create_async_engine(ASYNC_URL, **_pool(settings.max_jobs + 2), **_single)
sync_engine = create_engine(sync_url(settings.database_url), **_pool(settings.max_jobs))

AsyncSessionLocal = async_sessionmaker(async_engine, expire_on_commit=False)
JobSession = async_sessionmaker(
    jobs_engine.execution_options(**_several), class_=AsyncSession, expire_on_commit=False
)
SyncSessionLocal = sessionmaker(sync_engine, class_=Session, expire_on_commit=False)


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


def _renew_closed(connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
    """What the server has closed can be read from at once; to ask it would be a round trip."""
    driver: Any = record.driver_connection
    if driver.closed or _is_readable(driver.fileno()):
        raise DisconnectionError("closed by the server")


def _is_readable(file: int) -> bool:
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(0))


for engine in (async_engine.sync_engine, jobs_engine.sync_engine, sync_engine):
    if IS_SQLITE:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "savepoint", _begin_before_savepoint)
    else:
        event.listen(engine, "checkout", _renew_closed)


async def dispose() -> None:
    """Close every pooled connection of this process."""
    await async_engine.dispose()
    await jobs_engine.dispose()
    sync_engine.dispose()
