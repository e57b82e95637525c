"""Statements that wait until the test lets them go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.core.database import ASYNC_URL

BACKEND = text("SELECT pg_backend_pid()")
LOCK = 20_260_101
WAIT = text(f"SELECT pg_advisory_xact_lock_shared({LOCK})")
BLOCKED = text(  # how many statements wait for a lock
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def wait(connection: Connection) -> int:
    connection.execute(WAIT)
    return 1


@asynccontextmanager
async def outside() -> AsyncIterator[AsyncConnection]:
    """A connection outside the service's engines."""
    engine: AsyncEngine = create_async_engine(ASYNC_URL, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


@asynccontextmanager
async def waiting() -> AsyncIterator[AsyncConnection]:
    """WAIT waits while the body runs. Yields a connection outside the service's engines."""
    async with outside() as connection:
        await connection.execute(text(f"SELECT pg_advisory_lock({LOCK})"))
        yield connection
        await connection.execute(text("SELECT pg_advisory_unlock_all()"))


@asynccontextmanager
async def locked(job_id: UUID, strength: str = "UPDATE") -> AsyncIterator[None]:
    """Somebody keeps this job's row locked while the body runs."""
    lock = text(f"SELECT FROM jobs WHERE id = :id FOR {strength}")
    async with outside() as connection:
        await connection.execute(text("BEGIN"))
        await connection.execute(lock, {"id": job_id})
        yield
        await connection.execute(text("ROLLBACK"))
