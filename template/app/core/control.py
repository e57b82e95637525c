"""The engine's own statements: they claim, extend, end and ring for jobs, each within a limit.

They have connections of their own, so that a lease is extended while a job's session waits. On
PostgreSQL each statement commits by itself, in one round trip. On SQLite a thread of its own runs
them one after the other, so that they never wait for each other's lock.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, create_engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine

from app.config import get_settings
from app.core.database import (
    ASYNC_URL,
    CONTROL_CONNECTIONS,
    IS_SQLITE,
    JobSession,
    owned,
    pool,
    sync_url,
)
from app.core.drivers import give_up

T = TypeVar("T")

# Seconds for a statement; a connection that is silent for longer is given up, in time for another
# to extend the leases.
LIMIT = max(1, get_settings().lease / 3)

_single = {} if IS_SQLITE else {"isolation_level": "AUTOCOMMIT"}
_waited_for = owned(create_engine(sync_url(get_settings().database_url), **pool(1), **_single))
_on_loop = owned(create_async_engine(ASYNC_URL, **pool(CONTROL_CONNECTIONS), **_single))
_several = _on_loop if IS_SQLITE else _on_loop.execution_options(isolation_level="READ COMMITTED")
_thread = ThreadPoolExecutor(1, thread_name_prefix="control")


class Control(Protocol):
    """A way to run the engine's statements, as `control` is."""

    async def __call__(
        self, step: Callable[[Connection], T], *, transaction: bool = False
    ) -> T: ...


async def control(step: Callable[[Connection], T], *, transaction: bool = False) -> T:
    """Run the step's statements. Raises SQLAlchemyError, soon after the limit at the latest.

    On PostgreSQL each commits by itself, unless they are to be one transaction.
    """
    if IS_SQLITE:
        return await asyncio.get_running_loop().run_in_executor(_thread, control_now, step)
    async with (_several if transaction else _on_loop).connect() as connection:
        with _given_up_after(LIMIT, connection):
            done = await connection.run_sync(step)
            await connection.commit()
            return done


@asynccontextmanager
async def control_session() -> AsyncIterator[AsyncSession]:
    """A session in one transaction that is committed at the end; within the limit as well."""
    if IS_SQLITE:
        async with JobSession.begin() as session:
            yield session
        return
    async with AsyncSession(_several, expire_on_commit=False) as session:
        with _given_up_after(LIMIT, await session.connection()):
            yield session
            await session.commit()


def control_now(step: Callable[[Connection], T]) -> T:
    """Run the step's statements while this thread waits, with no limit but the network's."""
    with _waited_for.begin() as connection:
        return step(connection)


@contextmanager
def _given_up_after(seconds: float, connection: AsyncConnection) -> Iterator[None]:
    driver: Any = connection.sync_connection and connection.sync_connection.connection
    timer = asyncio.get_running_loop().call_later(seconds, give_up, driver.driver_connection)
    try:
        yield
    finally:
        timer.cancel()


def _renew() -> None:
    """A forked process has no thread of its parent's."""
    global _thread
    _thread = ThreadPoolExecutor(1, thread_name_prefix="control")


os.register_at_fork(after_in_child=_renew)
