"""An outage of the service's database doesn't count as a job's failure. The errors are real."""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import AsyncAdaptedQueuePool
from structlog.testing import capture_logs

from app.core import outages
from app.core.database import IS_SQLITE, AsyncSessionLocal, jobs_engine, sync_engine
from app.core.outages import is_outage, mark_errors_of, tell
from app.jobs import Status, current_job, task
from app.jobs.contract import Task
from app.jobs.host import Host
from app.jobs.runner import MOST_OUTAGES
from app.jobs.table import db_time
from tests.engine.jobs.rows import BACKEND, change, database_now, idle, row_of, submit

pytestmark = pytest.mark.usefixtures("no_other_jobs")

# On PostgreSQL the connection ends, on SQLite the file is full.
FAIL = (
    ["PRAGMA max_page_count = 1", "CREATE TABLE big AS SELECT zeroblob(100000000) AS much"]
    if IS_SQLITE
    else ["SELECT pg_terminate_backend(pg_backend_pid())"]
)
NO_LIMIT = "PRAGMA max_page_count = 4294967294" if IS_SQLITE else "SELECT 1"

READ_ONLY = "PRAGMA query_only = ON" if IS_SQLITE else "SET TRANSACTION READ ONLY"


@task(name="outages.own_session", tries=1)
async def own_session(db: AsyncSession) -> None:
    if current_job().attempt == 1:
        connection = await db.connection()
        try:
            for statement in FAIL:
                await connection.execute(text(statement))
        finally:
            if IS_SQLITE:
                await connection.execute(text(NO_LIMIT))


@task(name="outages.own_sync_session", tries=1)
def own_sync_session(db: Session) -> None:
    if current_job().attempt == 1:
        connection = db.connection()
        try:
            for statement in FAIL:
                connection.execute(text(statement))
        finally:
            if IS_SQLITE:
                connection.execute(text(NO_LIMIT))


@task(name="outages.read_only", tries=1)
async def read_only(db: AsyncSession) -> None:
    if current_job().attempt == 1:
        await db.execute(text(READ_ONLY))
    await db.execute(text("DELETE FROM known_tasks"))


@task(name="outages.opened_session", tries=1)
async def opened_session() -> None:
    async with AsyncSessionLocal() as db:
        await own_session(db)


@task(name="outages.own_pool", tries=1)
async def own_pool() -> None:
    async with AsyncExitStack() as opened:
        while current_job().attempt == 1:
            await opened.enter_async_context(jobs_engine.connect())


@task(name="outages.own_sync_pool", tries=1)
def own_sync_pool() -> None:
    with ExitStack() as opened:
        while current_job().attempt == 1:
            opened.enter_context(sync_engine.connect())


@task(name="outages.another_database", tries=1)
async def another_database() -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:////nowhere/{uuid4()}.db")
    async with engine.connect():
        raise AssertionError("no such folder")


@task(name="outages.another_pool", tries=1)
async def another_pool() -> None:
    small: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.01}
    engine = create_async_engine("sqlite+aiosqlite:///", poolclass=AsyncAdaptedQueuePool, **small)
    try:
        async with engine.connect(), engine.connect():
            raise AssertionError("there is one connection")
    finally:
        await engine.dispose()


@task(name="outages.too_many_parameters", tries=1)
async def too_many_parameters(db: AsyncSession) -> None:
    values = tuple(range(70_000))
    statement = f"SELECT ARRAY[{','.join(['%s'] * len(values))}]"
    await (await db.connection()).exec_driver_sql(statement, values)


@task(name="outages.too_big", tries=1)
async def too_big(db: AsyncSession) -> None:
    await db.execute(text("SET LOCAL work_mem = '64kB'; SET LOCAL temp_file_limit = '64kB'"))
    await db.execute(text("SELECT n FROM generate_series(1, 100000) AS n ORDER BY random()"))


@task(name="outages.no_shared_memory", tries=1)
async def no_shared_memory(db: AsyncSession) -> None:
    """What PostgreSQL says of a parallel join if /dev/shm is small: a container's has 64 MB."""
    said = 'could not resize shared memory segment "/PostgreSQL.1" to 9 bytes: No space left'
    await db.execute(text(f"DO $$ BEGIN RAISE '{said}' USING ERRCODE = '53100'; END $$"))


@task(name="outages.wrong_statement", tries=1)
async def wrong_statement(db: AsyncSession) -> None:
    await db.execute(text("SELECT * FROM nowhere"))


@task(name="outages.broken_rule", tries=1)
async def broken_rule(db: AsyncSession) -> None:
    await db.execute(text("INSERT INTO schedules (id) VALUES (NULL)"))


async def run(what: Task[..., Any, Any]) -> Row[Any]:
    """Submit a job and run one try; returns its row."""
    job_id = await submit(what)
    await try_once()
    return await row_of(job_id)


async def try_once() -> None:
    host = Host(BACKEND, 1)
    await host._look()
    await idle(host)


@pytest.mark.parametrize("probe", [own_session, own_sync_session, opened_session, read_only])
async def test_an_outage_of_the_services_own_database_is_not_counted(
    probe: Task[..., Any, Any],
) -> None:
    row = await run(probe)
    assert (row.status, row.error, row.finished_at) == (Status.PENDING, None, None)
    assert (row.attempts, row.max_attempts) == (1, 2)
    assert row.run_at > await database_now()
    assert (await tried_again(row.id)).status == Status.SUCCEEDED


async def test_a_task_that_causes_its_own_outages_ends() -> None:
    """Each of the first hundred gives it one more try."""
    job_id = await submit(own_session, max_attempts=own_session.tries + MOST_OUTAGES)
    await try_once()
    row = await row_of(job_id)
    assert (row.attempts, row.max_attempts) == (1, own_session.tries + MOST_OUTAGES)
    assert "OperationalError" in row.error


@pytest.mark.parametrize("probe", [own_pool, own_sync_pool])
async def test_a_job_that_gets_no_connection_in_time_is_tried_again_uncounted(
    probe: Task[..., Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine in (jobs_engine, sync_engine):
        monkeypatch.setattr(engine.pool, "_timeout", 0.01)
    row = await run(probe)
    assert (row.status, row.attempts, row.max_attempts) == (Status.PENDING, 1, 2)
    assert (await tried_again(row.id)).status == Status.SUCCEEDED


def test_a_server_that_refuses_connections_is_an_outage() -> None:
    engine = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    mark_errors_of(engine)
    with pytest.raises(OperationalError) as refused:
        engine.connect()
    assert is_outage(refused.value)


def test_another_error_is_logged_once_a_second_by_each_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each loop fails many times a second while a table is missing."""
    now, error = [5.0], RuntimeError("no such table")
    monkeypatch.setattr(outages, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with capture_logs() as logs:
        for _ in range(10):
            tell("one.failed", error)
        tell("another.failed", error)
        now[0] += 1
        tell("one.failed", error)
    told = [line["event"] for line in logs]
    assert told == ["one.failed", "another.failed", "one.failed"]


async def tried_again(job_id: UUID) -> Row[Any]:
    await change(job_id, run_at=db_time(0))
    await try_once()
    return await row_of(job_id)


@pytest.mark.parametrize(
    "probe",
    [
        another_database,
        another_pool,
        wrong_statement,
        broken_rule,
        *(
            pytest.param(each, marks=pytest.mark.postgresql)
            for each in (too_many_parameters, too_big, no_shared_memory)
        ),
    ],
)
async def test_any_other_error_of_a_database_is_the_tasks_own(probe: Task[..., Any, Any]) -> None:
    row = await run(probe)
    assert (row.status, row.attempts, row.max_attempts) == (Status.DEAD, 1, 1)
    assert "Error" in row.error
