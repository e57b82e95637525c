"""The engine's own statements have limits of their own, and few enough connections."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from threading import current_thread

import pytest
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.config import get_settings
from app.core import control as module
from app.core.control import control, control_session
from app.core.database import AsyncSessionLocal, SyncSessionLocal, dispose
from app.core.outages import is_outage
from app.jobs.table import db_time, known_tasks
from tests.engine.core.waits import BACKEND, WAIT, wait, waiting
from tests.service import ROOT, eventually

TRANSACTION = text("SELECT pg_current_xact_id()::text")
CONNECTIONS = text(
    "SELECT count(*) FILTER (WHERE wait_event = 'advisory') AS waiting, count(*) AS open"
    " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture
async def outside() -> AsyncIterator[AsyncConnection]:
    async with waiting() as connection:
        yield connection


@pytest.mark.postgresql
async def test_a_process_opens_no_more_connections_than_it_may(
    outside: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await dispose()
    monkeypatch.setattr(module, "LIMIT", 3600)

    async def in_session() -> int:
        async with AsyncSessionLocal() as session:
            return await (await session.connection()).run_sync(wait)

    async def in_control_session() -> int:
        async with control_session() as session:
            return await (await session.connection()).run_sync(wait)

    def in_sync_session() -> int:
        with SyncSessionLocal() as session:
            return wait(session.connection())

    kinds = (
        in_session,
        in_control_session,
        lambda: control(wait),
        lambda: control(wait, transaction=True),
        lambda: asyncio.to_thread(in_sync_session),
    )
    # Sync sessions get few threads, because asyncio has few, and other code needs them, too.
    many = [kind() for kind in kinds for _ in range(3 if kind is kinds[-1] else 20)]
    working = asyncio.gather(*many)
    allowed = get_settings().database_connections

    async def all_are_used() -> bool:
        found = (await outside.execute(CONNECTIONS)).one()
        assert found.open <= allowed
        return bool(found.waiting == allowed)

    await eventually(all_are_used)
    await outside.execute(text("SELECT pg_advisory_unlock_all()"))
    assert await working == [1] * len(many)
    assert (await outside.execute(CONNECTIONS)).one().open == allowed


@pytest.mark.postgresql
@pytest.mark.parametrize("transaction", [False, True])
async def test_a_silent_connection_is_given_up(
    outside: AsyncConnection, monkeypatch: pytest.MonkeyPatch, transaction: bool
) -> None:
    """Other open connections are renewed, too. The statement may go on in the server."""
    await dispose()
    async with AsyncSessionLocal() as session:
        before = await session.scalar(BACKEND)
    monkeypatch.setattr(module, "LIMIT", 0.1)
    with pytest.raises(OperationalError) as failed:
        await control(wait, transaction=transaction)
    assert is_outage(failed.value)
    monkeypatch.undo()
    assert await control(lambda connection: connection.scalar(text("SELECT 7"))) == 7
    async with AsyncSessionLocal() as session:
        assert await session.scalar(BACKEND) != before


@pytest.mark.postgresql
async def test_a_silent_session_of_the_dispatchers_is_given_up(
    outside: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT", 0.1)
    with pytest.raises(OperationalError) as failed:
        async with control_session() as session:
            await session.execute(WAIT)
    assert is_outage(failed.value)


@pytest.mark.postgresql
async def test_a_connection_that_answers_in_time_is_kept() -> None:
    await dispose()
    first = await control(lambda connection: connection.scalar(BACKEND))
    assert await control(lambda connection: connection.scalar(BACKEND)) == first


@pytest.mark.postgresql
@pytest.mark.parametrize("transaction", [False, True])
async def test_each_statement_commits_by_itself_unless_they_are_one_transaction(
    transaction: bool,
) -> None:
    def twice(connection: Connection) -> set[str | None]:
        return {connection.scalar(TRANSACTION) for _ in range(2)}

    assert len(await control(twice, transaction=transaction)) == (1 if transaction else 2)


async def known(session: AsyncSession, name: str) -> bool:
    found = await session.scalar(select(known_tasks.c.name).where(known_tasks.c.name == name))
    await session.rollback()
    return found is not None


async def test_a_step_that_fails_in_a_transaction_leaves_nothing(session: AsyncSession) -> None:
    def fail(connection: Connection) -> None:
        connection.execute(insert(known_tasks).values(name="control.fails", seen_at=db_time(0)))
        raise RuntimeError("after the write")

    with pytest.raises(RuntimeError, match="after the write"):
        await control(fail, transaction=True)
    assert not await known(session, "control.fails")


async def test_a_session_commits_at_its_end(session: AsyncSession) -> None:
    async with control_session() as own:
        await own.execute(insert(known_tasks).values(name="control.commits", seen_at=db_time(0)))
    assert await known(session, "control.commits")


async def test_a_session_rolls_back_with_an_error(session: AsyncSession) -> None:
    with pytest.raises(RuntimeError, match="after the write"):
        async with control_session() as own:
            await own.execute(insert(known_tasks).values(name="control.rolls", seen_at=db_time(0)))
            raise RuntimeError("after the write")
    assert not await known(session, "control.rolls")


@pytest.mark.sqlite
async def test_steps_that_write_never_wait_for_each_other_in_sqlite() -> None:
    """One thread runs all steps, however many there are at once."""
    names = await asyncio.gather(*(control(lambda _: current_thread().name) for _ in range(20)))
    assert len(set(names)) == 1


def test_a_forked_process_has_a_thread_of_its_own() -> None:
    """A fork, such as a pool makes, has no threads of its parent."""
    ran = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, cwd=ROOT)
    assert (ran.returncode, ran.stdout) == (0, "1\n1\n"), ran.stderr


FORK = """
import asyncio, os
from sqlalchemy import text
from app.core import database
from app.core.control import control

async def main():
    print(await control(lambda connection: connection.scalar(text("SELECT 1"))), flush=True)
    await database.dispose()

asyncio.run(main())
if child := os.fork():
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
asyncio.run(main())
"""
