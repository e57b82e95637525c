"""Examines the database: first its server and its schema, then what is in it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from app.cli.output import counted
from app.core.concurrency import in_thread
from app.core.control import control_now
from app.core.database import IS_SQLITE, AsyncSessionLocal
from app.core.loading import Migrations
from app.core.outages import MIGRATE, remedy, said
from app.doctor import Finding, work
from app.doctor.connections import most_of
from app.jobs import Jobs, ProcessState
from app.jobs.backends import try_to_write

T = TypeVar("T")

PATIENCE = 5_000  # milliseconds of a write to SQLite: it ends within the doctor's limit
SKEW = 1  # seconds by which a clock may differ from the database's
LIMIT = text(
    """
    SELECT current_setting('max_connections')::int
      - current_setting('superuser_reserved_connections')::int
      - coalesce(current_setting('reserved_connections', true), '0')::int, pg_backend_pid()
    """
)


async def examine() -> AsyncIterator[Finding]:
    """It stops at a fault of the server or the schema, which the rest needs."""
    try:
        async for finding in _examine():
            yield finding
    except SQLAlchemyError as error:
        yield Finding("database", f"DATABASE_URL: {said(error)}", remedy(error))


async def _examine() -> AsyncIterator[Finding]:
    of_schema = await _schema()
    for finding in of_schema:
        yield finding
        if finding.level == "fault":
            return
    asked = time.time()
    now = await _ask(_try_to_write)
    for finding in _clock(asked, now.timestamp()):
        yield finding
    async with AsyncSessionLocal() as session:
        processes = await Jobs(session).processes()
        for finding in await _connections(processes):
            yield finding
        newer = bool(of_schema)  # no fault is left here
        async for finding in work.examine_all(session, processes, newer=newer):
            yield finding


async def _schema() -> list[Finding]:
    try:
        migrations = Migrations()
    except Exception as error:  # any that a file of the owner's raises
        return [Finding("migrations", f"can't be read: {error!r}", "mend the file")]
    schema = await _ask(migrations.compare)
    if schema.missing:
        what = f"its schema lacks {', '.join(schema.missing)}"
        return [Finding("migrations", what, MIGRATE)]
    if schema.newer:
        what = f"its schema has {', '.join(schema.newer)}, which this release doesn't know"
        return [Finding("migrations", what, work.AS_IT_SHOULD_BE, "note")]
    return []


def _try_to_write(connection: Connection) -> datetime:
    if IS_SQLITE:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {PATIENCE}")
    return try_to_write(connection)


def _clock(asked: float, now: float) -> list[Finding]:
    """`now` is the database's, of a moment since it was `asked`; both in seconds."""
    by = max(0, now - time.time()) + min(0, now - asked)
    if abs(by) < SKEW:
        return []
    what = f"the database's clock is {abs(by):.1f} s {'ahead of' if by > 0 else 'behind'} this one"
    return [Finding("clock", what, "let both machines keep time by NTP")]


async def _connections(processes: list[ProcessState]) -> list[Finding]:
    """Compare what all live processes may open with the server's limit. A pooler has its own."""
    if IS_SQLITE:
        return []
    limit, pooled = await _ask(_limit)
    # The API may be the host of two back ends, in a row for each.
    alive = sorted((each for each in processes if each.alive), key=most_of)
    most = {(each.host, each.pid): most_of(each) for each in alive}
    wanted = sum(most.values())
    if pooled or wanted <= limit:
        return []
    those = counted(len(most), "process", "processes")
    what = f"{those} may open {wanted} connections, and the server has {limit}"
    todo = "raise its max_connections, lower DATABASE_CONNECTIONS, or put PgBouncer between"
    return [Finding("database", what, todo)]


def _limit(connection: Connection) -> tuple[int, bool]:
    """The limit for ordinary users, and whether there is a pooler, which shows other pids."""
    driver: Any = connection.connection.driver_connection
    limit, pid = connection.execute(LIMIT).one()
    return limit, pid != driver.info.backend_pid


async def _ask(question: Callable[[Connection], T]) -> T:
    """Ask in a thread that ends with the process, however long the database is silent."""
    return await in_thread(partial(control_now, question))
