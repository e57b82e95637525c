"""What every connection does beyond its driver's own work, above all to PostgreSQL.

A server that is silent is given up, and so is what a thread uses that nobody waits for. A value
that Python can't read (garbage, an infinite date) must not fail the statement that reads it
together with others. `sqlite.py` has what is SQLite's alone.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format
from sqlalchemy import Dialect, TypeDecorator
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from app.core.sqlite import SqliteConnection

T = TypeVar("T")

# A server that vanished is noticed within 20 s, not after the system's hours. Keepalives watch a
# connection that waits for an answer; the user timeout is for a request that nobody acknowledges.
NETWORK_LIMITS = {
    "connect_timeout": 5,
    "keepalives_idle": 8,
    "keepalives_interval": 4,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
REQUEST_LIMIT = 15  # seconds for a statement of a request; then its connection is given up


def limit_questions(connection: Any, record: ConnectionPoolEntry) -> None:
    """Limit what SQLAlchemy first asks a server: all other connections wait for the answer."""
    timer = threading.Timer(REQUEST_LIMIT, give_up, [record.driver_connection])
    timer.daemon = True
    timer.start()
    record.info["questions"] = timer


def prepare_postgresql(connection: Any, record: ConnectionPoolEntry) -> None:
    record.info.pop("questions").cancel()
    record.info["opened"] = time.monotonic()
    driver: Any = record.driver_connection
    tolerate(driver.adapters)


def renew_closed(connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
    """Replace a connection that the server has closed: it is readable. A query would cost time."""
    driver: Any = record.driver_connection
    if driver.closed or record.info["opened"] < _silent or _is_readable(driver.fileno()):
        raise DisconnectionError("closed by the server, or silent")


_silent = 0.0  # when a connection was last found silent, by the monotonic clock


def distrust_open_connections() -> None:
    """Renew all connections: what has lost one of them may have lost the others as well."""
    global _silent
    _silent = time.monotonic()


def _is_readable(file: int) -> bool:
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(0))


def give_up(driver: Any) -> None:
    """End a connection that is silent, so that whoever waits for its answer gets an error at once.

    Cancelling the statement instead would again wait for the silent server.
    """
    if isinstance(driver, SqliteConnection):
        driver.give_up()
        return
    with suppress(Exception), socket.socket(fileno=os.dup(driver.fileno())) as mine:
        mine.shutdown(socket.SHUT_RDWR)
        distrust_open_connections()


@dataclass(frozen=True)
class Unreadable:
    """Stands in place of a value that can't be read."""

    reason: str

    def __bool__(self) -> bool:
        return False


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
                return value if isinstance(value, Unreadable) else _unreadable(error)

        return read


def tolerate(adapters: AdaptersMap) -> None:
    """Do the same for the types that PostgreSQL's driver reads itself."""
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
                return _unreadable(error)

    return TolerantLoader


def _unreadable(error: Exception) -> Unreadable:
    return Unreadable(str(error)[:200] or type(error).__name__)
