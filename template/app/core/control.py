"""Runs the engine's own statements, each within a time limit.

They have their own connections, so that a lease is extended while a job's session waits. On
PostgreSQL each statement commits by itself, in one round trip. On SQLite one thread runs them one
after the other, so that they never wait for each other's lock.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from app.config import get_settings
from app.core.database import ASYNC_URL, CONTROL_CONNECTIONS, IS_SQLITE, owned, pool, sync_url
from app.core.drivers import give_up
from app.core.outages import OwnPool

T = TypeVar("T")

# Seconds for a statement. A connection that is silent for longer is given up. Then there is still
# time to extend the leases through another one.
LIMIT = max(1, get_settings().lease / 3)

_single: dict[str, Any] = (
    {} if IS_SQLITE else {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True}
)
_waited_for = owned(
    create_engine(sync_url(get_settings().database_url), **pool(1, OwnPool), **_single)
)
_on_loop = owned(create_async_engine(ASYNC_URL, **pool(CONTROL_CONNECTIONS), **_single))
_several = _on_loop if IS_SQLITE else _on_loop.execution_options(isolation_level="READ COMMITTED")
_thread = ThreadPoolExecutor(1, thread_name_prefix="control")


class Control(Protocol):
    """A way to run the engine's statements, such as `control`."""

    async def __call__(
        self, step: Callable[[Connection], T], *, transaction: bool = False
    ) -> T: ...


async def control(step: Callable[[Connection], T], *, transaction: bool = False) -> T:
    """Run the step's statements. Raises SQLAlchemyError, at the latest soon after the limit.

    On PostgreSQL each statement commits by itself, unless `transaction` is set.
    """
    if IS_SQLITE:
        return await asyncio.get_running_loop().run_in_executor(_thread, control_now, step)
    # One greenlet for connect, run and close, instead of three, saves a third of the CPU.
    return await greenlet_spawn(_in_transaction if transaction else _each_by_itself, step)


def _each_by_itself(step: Callable[[Connection], T]) -> T:
    with _on_loop.sync_engine.connect() as connection, _given_up_after(LIMIT, connection):
        return step(connection)


def _in_transaction(step: Callable[[Connection], T]) -> T:
    with (
        _several.sync_engine.connect() as connection,
        _given_up_after(LIMIT, connection),  # the commit as well
        connection.begin(),
    ):
        return step(connection)


@asynccontextmanager
async def control_session() -> AsyncIterator[AsyncSession]:
    """A session in one transaction, which is committed at the end.

    On PostgreSQL it has the same limit.
    """
    if IS_SQLITE:
        async with AsyncSession(_on_loop, expire_on_commit=False) as session, session.begin():
            yield session
        return
    async with AsyncSession(_several, expire_on_commit=False) as session:
        with _given_up_after(LIMIT, await session.run_sync(Session.connection)):
            yield session
            await session.commit()


def control_now(step: Callable[[Connection], T]) -> T:
    """Run the step's statements in this thread. Only the network limits the time."""
    opened = _waited_for.begin if IS_SQLITE else _waited_for.connect
    with opened() as connection:
        return step(connection)


@contextmanager
def _given_up_after(seconds: float, connection: Connection) -> Iterator[None]:
    driver = connection.connection.driver_connection
    timer = asyncio.get_running_loop().call_later(seconds, give_up, driver)
    try:
        yield
    finally:
        timer.cancel()


def _renew() -> None:
    """A forked process doesn't have the threads of its parent."""
    global _thread
    _thread = ThreadPoolExecutor(1, thread_name_prefix="control")


os.register_at_fork(after_in_child=_renew)
