"""A PostgreSQL that refuses writes for a while costs no job its outcome."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from app.core.control import control
from app.core.database import dispose
from app.jobs import Jobs, Status, current_job, task
from app.jobs.host import Host
from app.jobs.outcomes import Outcome, Outcomes
from app.jobs.table import db_time
from app.models import Order
from tests.engine import probes
from tests.engine.core.waits import locked, outside
from tests.engine.jobs.rows import database_now, orders_of, row_of, status_is, submit
from tests.engine.jobs.statements import statements
from tests.engine.jobs.watches import judging_watch
from tests.service import eventually

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("no_other_jobs")]

END_OTHERS = text(
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
LOCK_TABLE = text("LOCK TABLE jobs IN EXCLUSIVE MODE")
LOCK_ROWS = text("UPDATE jobs SET pushes = pushes")

gates = [threading.Event()]
have_read: set[UUID] = set()


@pytest.fixture(autouse=True)
async def connections_end() -> AsyncIterator[None]:
    """Else those that are made in a test keep its settings in the tests that follow."""
    yield
    await dispose()


async def gate() -> None:
    await asyncio.to_thread(gates[-1].wait, 60)


@task(name="refusing.plain", tries=1)
async def plain() -> int:
    await gate()
    return current_job().attempt


@task(name="refusing.with_session", tries=1)
async def with_session(db: AsyncSession) -> None:
    await gate()
    db.add(Order(item=str(current_job().id), quantity=1))


@task(name="refusing.with_sync_session", tries=1)
def with_sync_session(db: Session) -> None:
    gates[-1].wait(60)
    db.add(Order(item=str(current_job().id), quantity=1))


@task(name="refusing.impatient", tries=1)
async def impatient(db: AsyncSession) -> None:
    await db.execute(text("SET LOCAL lock_timeout = '100ms'"))
    await with_session(db)


@task(name="refusing.reads_first", tries=1)
async def reads_first(db: AsyncSession) -> int:
    """At another isolation level it would see what was there at its first statement."""
    await db.execute(text("SELECT FROM orders"))
    have_read.add(current_job().id)
    await gate()
    return current_job().attempt


@asynccontextmanager
async def database_has(setting: str, value: str) -> AsyncIterator[AsyncConnection]:
    """All connections that are made in the body have the setting, and may outlive it."""
    async with outside() as connection:
        database = f'ALTER DATABASE "{await connection.scalar(text("SELECT current_database()"))}"'
        await connection.execute(text(f"{database} SET {setting} = '{value}'"))
        await connection.execute(END_OTHERS)
        try:
            yield connection
        finally:
            await connection.execute(text(f"{database} RESET {setting}"))


async def started(host: Host, *ids: UUID) -> None:
    host.ring()
    for job_id in ids:
        await status_is(job_id, Status.RUNNING)


async def test_jobs_that_end_while_the_database_is_read_only_keep_their_outcomes(
    host: Host,
) -> None:
    """For longer than a lease. Connections that were made meanwhile stay read-only."""
    gates.append(threading.Event())
    kept = [await submit(plain), await submit(plain)]
    again = [await submit(with_session), await submit(with_sync_session)]
    await started(host, *kept, *again)
    async with database_has("default_transaction_read_only", "on"):
        gates[-1].set()

        async def leases_have_ended() -> bool:
            now = await database_now()
            return all([(await row_of(each)).wake_at < now for each in kept + again])

        await eventually(leases_have_ended)
        await asyncio.gather(*(row_of(each) for each in 6 * kept))  # so many are read-only
    for job_id in kept:
        row = await status_is(job_id, Status.SUCCEEDED)
        assert (row.attempts, row.result, row.crashes) == (1, 1, 0)
    for job_id in again:
        row = await status_is(job_id, Status.SUCCEEDED)
        assert row.attempts == row.max_attempts > 1  # none of its tries was counted
        assert row.attempts < 4  # it doesn't meet each connection that was made meanwhile
        assert (row.crashes, await orders_of(job_id)) == (0, 1)


async def test_leases_are_extended_before_a_job_is_taken_back() -> None:
    """No host could extend a lease while the database was read-only, but each can now."""
    held: dict[str, Any] = {"status": Status.RUNNING, "attempts": 1, "wake_at": db_time(-1)}
    job_id, watch = await submit(probes.echo, "a", **held), judging_watch()
    async with database_has("default_transaction_read_only", "on"):
        for _ in range(3):
            with pytest.raises(DBAPIError, match="read-only"):
                await watch.step()
    await watch.step()
    assert (await row_of(job_id)).status == Status.RUNNING
    watch.wait(0)
    await watch.step()
    assert (await row_of(job_id)).status == Status.PENDING


@pytest.mark.parametrize(
    ("setting", "value", "lock"),
    [
        ("lock_timeout", "300ms", LOCK_TABLE),
        ("statement_timeout", "300ms", LOCK_TABLE),
        ("default_transaction_isolation", "repeatable read", LOCK_ROWS),
    ],
)
async def test_an_outcome_that_others_are_in_the_way_of_is_written_again(
    session: AsyncSession, setting: str, value: str, lock: TextClause
) -> None:
    job = await Jobs(session).submit(probes.echo, "a")
    await session.execute(text("UPDATE jobs SET status = 'running', attempts = 1"))
    await session.commit()
    async with database_has(setting, value), outside() as locking:
        await locking.execute(text("BEGIN"))
        await locking.execute(lock)
        await dispose()
        with statements() as made:
            outcome = Outcome(job.id, 1, Status.SUCCEEDED, result=1)
            writing = asyncio.create_task(Outcomes(control).write(outcome))

            async def several() -> bool:
                return len(made) >= 3

            await eventually(several)
        await locking.execute(text("COMMIT"))
        assert await writing is outcome
    row = await row_of(job.id)
    assert (row.status, row.result, row.error) == (Status.SUCCEEDED, 1, None)


async def test_a_lock_costs_a_task_with_a_session_no_try(host: Host) -> None:
    gates.append(threading.Event())
    job_id = await submit(impatient)
    await started(host, job_id)
    claim = host._claims[job_id]

    async def is_in_the_way() -> bool:
        return bool(claim.ended)

    async with locked(job_id):
        gates[-1].set()
        await eventually(is_in_the_way)
    row = await status_is(job_id, Status.SUCCEEDED)
    assert (row.attempts, row.max_attempts, await orders_of(job_id)) == (2, 2, 1)


async def test_a_lease_that_is_extended_costs_a_task_with_a_session_no_try(host: Host) -> None:
    async with database_has("default_transaction_isolation", "repeatable read"):
        await dispose()
        gates.append(threading.Event())
        job_id = await submit(reads_first)
        await started(host, job_id)

        async def has_read() -> bool:
            return job_id in have_read

        await eventually(has_read)
        await host._extend()
        gates[-1].set()
        row = await status_is(job_id, Status.SUCCEEDED)
        assert (row.result, row.attempts) == (1, 1)
