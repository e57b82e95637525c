"""SQLAlchemy's engines and sessions, for SQLite or PostgreSQL. Nothing connects at import.

A process opens at most DATABASE_CONNECTIONS connections to PostgreSQL: two for the statements
of `app/jobs` (`control.py`), two for the sessions of sync tasks, the rest for async sessions.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import (
    URL,
    Connection,
    DateTime,
    Dialect,
    Engine,
    ExceptionContext,
    TypeDecorator,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from app.config import get_settings
from app.core import drivers
from app.core.drivers import Unreadable, give_up, unreadable
from app.core.outages import GIVEN_UP, OwnAsyncPool, OwnPool, mark_errors_of

CONTROL_CONNECTIONS = 2
SYNC_CONNECTIONS = 2

# They notice within 20 s that a server has vanished; the system's defaults take hours. Keepalives
# watch a connection that waits for an answer, the user timeout what nobody has acknowledged.
CONNECT_ARGS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 8,
    "keepalives_interval": 4,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON")
# PostgreSQL keeps no NUL, and half of a surrogate pair can't be written as UTF-8.
UNKEPT = re.compile("[\0\ud800-\udfff]")
REQUEST_LIMIT = 15  # seconds for a statement of a request; then its connection is given up

T = TypeVar("T")


class Base(DeclarativeBase):
    """The base of all models, which are in `app/models/`."""


class Tolerant(TypeDecorator[T]):
    """A column's type that reads garbage as `Unreadable`."""

    __abstract__ = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        process = super().result_processor(dialect, coltype)
        if process is None:
            return None

        def read(value: Any) -> Any:
            try:
                return process(value)
            except Exception as error:
                return value if isinstance(value, Unreadable) else unreadable(error)

        return read


class UtcDateTime(Tolerant[datetime]):
    """An aware UTC datetime, also where the database (SQLite) keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


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
if not settings.database_prepares:
    CONNECT_ARGS["prepare_threshold"] = None


def pool(size: int, kind: type[OwnPool] = OwnAsyncPool) -> dict[str, Any]:
    """An engine's options for at most so many connections."""
    options: dict[str, Any] = {"pool_size": size, "max_overflow": 0, "pool_timeout": 30}
    options["poolclass"] = kind
    options["hide_parameters"] = True  # an error's text reaches the log, and `jobs.error`
    if IS_SQLITE:
        # IMMEDIATE: a transaction that began by reading could not be upgraded to write.
        options["connect_args"] = {
            "factory": drivers.SqliteConnection,
            "isolation_level": "IMMEDIATE",
            "timeout": drivers.PATIENCE,
        }
    else:
        options["connect_args"] = CONNECT_ARGS
    return options


def _limit_statements(engine: Engine) -> None:
    """Limit the statements of requests: else a silent server soon holds all their connections."""

    def begin(connection: Connection, *_: Any) -> None:
        if connection.invalidated:
            return
        end(connection)
        driver, loop = connection.connection.driver_connection, asyncio.get_running_loop()
        connection.info["limit"] = loop.call_later(REQUEST_LIMIT, give_up, driver)

    def end(connection: Any, *_: Any) -> None:
        if timer := connection.info.pop("limit", None):
            timer.cancel()

    for name in ("before_cursor_execute", "commit", "rollback"):
        event.listen(engine, name, begin)
    event.listen(engine, "after_cursor_execute", end)
    event.listen(engine, "checkin", lambda _, record: end(record))


def _note_given_up(context: ExceptionContext) -> None:
    """Treat the connection as lost, even if the error only says that a statement was cancelled."""
    pooled = context.connection and context.connection.connection
    if pooled and pooled.driver_connection in drivers.given_up:
        context.is_disconnect = True
        if context.sqlalchemy_exception:
            context.sqlalchemy_exception.add_note(GIVEN_UP)


def _prepare_sqlite(connection: Any, record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _limit_questions(connection: Any, record: ConnectionPoolEntry) -> None:
    """Limit SQLAlchemy's first questions: all other connections wait for the server's answers."""
    timer = threading.Timer(REQUEST_LIMIT, give_up, [record.driver_connection])
    timer.daemon = True
    timer.start()
    record.info["questions"] = timer


def _prepare_postgresql(connection: Any, record: ConnectionPoolEntry) -> None:
    record.info.pop("questions").cancel()
    record.info["opened"] = time.monotonic()
    driver: Any = record.driver_connection
    drivers.tolerate(driver.adapters)


_engines: list[AsyncEngine | Engine] = []

E = TypeVar("E", AsyncEngine, Engine)


def owned(engine: E) -> E:
    """Prepare an engine for this process's database, and close it with the others."""
    target = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    if IS_SQLITE:
        event.listen(target, "connect", _prepare_sqlite)
    else:
        event.listen(target, "connect", _limit_questions, insert=True)
        event.listen(target, "connect", _prepare_postgresql)
        event.listen(target, "checkout", drivers.renew_closed)
        event.listen(target, "handle_error", _note_given_up)
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
    owned(create_async_engine(ASYNC_URL, **pool(settings.max_jobs)))
    if IS_SQLITE
    else async_engine.execution_options()  # the same connections, for events of its own
)
sync_engine = owned(create_engine(sync_url(settings.database_url), **pool(_sync, OwnPool)))

_requests = async_engine if IS_SQLITE else async_engine.execution_options()
if not IS_SQLITE:
    _limit_statements(_requests.sync_engine)

AsyncSessionLocal = async_sessionmaker(_requests, expire_on_commit=False)
JobSession = async_sessionmaker(jobs_engine, class_=AsyncSession, expire_on_commit=False)
SyncSessionLocal = sessionmaker(sync_engine, class_=Session, expire_on_commit=False)
