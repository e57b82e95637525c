from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from app.core.database import IS_SQLITE, AsyncSessionLocal, SyncSessionLocal
from app.dependencies import get_session
from app.jobs import JobNotFoundError, Jobs, JobStateError, Status, SyncJobs, task
from app.jobs.submit import _holder
from app.jobs.table import HEAD_START, db_time, jobs
from tests.engine import probes
from tests.engine.jobs.statements import plans_of


async def exists(job_id: UUID) -> bool:
    async with AsyncSessionLocal() as other:
        found = await other.execute(select(jobs.c.id).where(jobs.c.id == job_id))
        return found.first() is not None


async def test_a_job_commits_with_the_caller(session: AsyncSession) -> None:
    job = await Jobs(session).submit(probes.echo, "a")
    await session.commit()
    assert await exists(job.id)


async def test_a_job_rolls_back_with_the_caller(session: AsyncSession) -> None:
    job = await Jobs(session).submit(probes.echo, "a")
    await session.rollback()
    assert not await exists(job.id)


async def test_a_job_rolls_back_with_its_savepoint(session: AsyncSession) -> None:
    kept = await Jobs(session).submit(probes.echo, "kept")
    savepoint = await session.begin_nested()
    dropped = await Jobs(session).submit(probes.echo, "dropped")
    await savepoint.rollback()
    await session.commit()
    assert await exists(kept.id)
    assert not await exists(dropped.id)


async def test_a_released_savepoint_still_rolls_back_with_the_caller(session: AsyncSession) -> None:
    async with session.begin_nested():
        job = await Jobs(session).submit(probes.echo, "a")
    await session.rollback()
    assert not await exists(job.id)


async def test_a_sync_session_submits_as_well() -> None:
    with SyncSessionLocal() as sync:
        kept = SyncJobs(sync).submit(probes.echo, "a", key="sync")
        again = SyncJobs(sync).submit(probes.echo, "b", key="sync")
        sync.commit()
        dropped = SyncJobs(sync).submit(probes.echo, "a")
        sync.rollback()
    assert (again.id, again.created) == (kept.id, False)
    assert await exists(kept.id)
    assert not await exists(dropped.id)


async def test_the_other_kind_of_session_is_refused(session: AsyncSession) -> None:
    with SyncSessionLocal() as sync, pytest.raises(TypeError, match="use SyncJobs"):
        Jobs(sync)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="use Jobs"):
        SyncJobs(session)  # type: ignore[arg-type]


async def test_a_delayed_job_waits_in_the_table(session: AsyncSession) -> None:
    hour = timedelta(hours=1)
    job = await Jobs(session).submit(probes.echo, "a", delay=hour)
    row = await Jobs(session).get(job.id)
    assert row.run_at == row.created_at + hour
    assert row.wake_at == row.run_at + timedelta(seconds=HEAD_START)
    at = (row.created_at + hour).astimezone(timezone(-hour))
    job = await Jobs(session).submit(probes.echo, "a", at=at)
    row = await Jobs(session).get(job.id)
    assert row.run_at == at
    assert row.wake_at == row.run_at + timedelta(seconds=HEAD_START)


async def test_what_it_cannot_run_is_refused(session: AsyncSession) -> None:
    hour = timedelta(hours=1)
    with pytest.raises(ValueError, match="QUEUES"):
        await Jobs(session).submit(probes.echo, "a", queue="nobodys")
    with pytest.raises(ValueError, match="aware"):
        await Jobs(session).submit(probes.echo, "a", at=datetime(2030, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="not both"):
        await Jobs(session).submit(probes.echo, "a", delay=hour, at=datetime.now(UTC))


@task(name="submit.numbers")
async def numbers(
    number: float = 0, more: list[float] | None = None, other: Any = None
) -> None: ...


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
async def test_a_number_that_json_lacks_is_refused(session: AsyncSession, wrong: float) -> None:
    """On PostgreSQL it would end the caller's transaction."""
    found = Jobs(session)
    with pytest.raises(ValueError, match=r"^submit.numbers: number: .+ finite number, got float$"):
        await found.submit(numbers, wrong)
    with pytest.raises(ValueError, match=r"^submit.numbers: more.+ finite number, got float$"):
        await found.submit(numbers, 0, [0, wrong])
    with pytest.raises(ValueError, match="not JSON compliant"):
        await found.submit(numbers, 0, [], {"wrong": [wrong]})
    with pytest.raises(ValueError, match="finite number"):
        await found.submit_many(numbers, [[0], [wrong]])
    assert (await found.get((await found.submit(numbers, 1.5)).id)).args == {"number": 1.5}


async def test_a_key_gives_the_job_that_is_there_until_it_has_finished(
    session: AsyncSession,
) -> None:
    key = f"key {uuid4()}"
    first = await Jobs(session).submit(probes.echo, "a", key=key)
    second = await Jobs(session).submit(probes.echo, "b", key=key)
    assert (second.id, second.created) == (first.id, False)
    await finish(session, first.id)
    third = await Jobs(session).submit(probes.echo, "c", key=key)
    assert third.created
    await session.commit()


async def test_a_key_gives_the_job_that_holds_it_not_the_newest(session: AsyncSession) -> None:
    """An older job that died is replayed, and holds the key again."""
    key = f"key {uuid4()}"
    older = await Jobs(session).submit(probes.echo, "a", key=key)
    await finish(session, older.id, Status.DEAD)
    newest = await Jobs(session).submit(probes.echo, "b", key=key)
    await finish(session, newest.id)
    await Jobs(session).replay(older.id)
    found = await Jobs(session).submit(probes.echo, "c", key=key)
    assert (found.id, found.created) == (older.id, False)
    await session.rollback()


async def test_a_key_is_found_by_its_index() -> None:
    async with AsyncSessionLocal.begin() as own:
        first = await Jobs(own).submit(probes.echo, "a", key=f"key {uuid4()}")
        key = (await Jobs(own).get(first.id)).key
    found: list[UUID] = []

    def find(connection: Connection) -> None:
        with Session(connection) as own:
            found.append(_holder(own, probes.echo.name, key).id)

    # In a table that has been large a bitmap of the same index may cost as much.
    [plan] = await plans_of(find, bitmaps=False)
    assert found == [first.id]
    assert "jobs_key (task=? AND key=?)" in plan if IS_SQLITE else "using jobs_key" in plan, plan


async def test_a_kept_key_is_kept_for_good(session: AsyncSession) -> None:
    key = f"key {uuid4()}"
    first = await Jobs(session).submit(probes.echo, "a", key=key, keep_key=True)
    await finish(session, first.id)
    second = await Jobs(session).submit(probes.echo, "b", key=key, keep_key=True)
    assert second.id == first.id
    await session.commit()


async def test_one_key_at_once_is_one_job() -> None:
    key = f"key {uuid4()}"

    async def submit() -> UUID:
        async with AsyncSessionLocal() as own:
            job = await Jobs(own).submit(probes.echo, "a", key=key)
            await own.commit()
            return job.id

    assert len(set(await asyncio.gather(*(submit() for _ in range(5))))) == 1


async def test_only_a_dead_job_is_replayed(session: AsyncSession) -> None:
    job = await Jobs(session).submit(probes.echo, "a")
    with pytest.raises(JobStateError, match="not dead"):
        await Jobs(session).replay(job.id)
    dead = {"status": Status.DEAD, "attempts": 4, "finished_at": db_time(0), "wake_at": None}
    await session.execute(update(jobs).where(jobs.c.id == job.id).values(dead))
    await Jobs(session).replay(job.id)
    row = await Jobs(session).get(job.id)
    assert (row.status, row.attempts, row.max_attempts) == (Status.PENDING, 4, 9)
    assert row.finished_at is None
    await session.rollback()


async def test_an_unknown_job_has_an_error_of_its_own(session: AsyncSession) -> None:
    for step in (Jobs(session).get, Jobs(session).replay, Jobs(session).cancel):
        with pytest.raises(JobNotFoundError):
            await step(uuid4())


async def test_a_queue_counts_what_waits_and_is_due(session: AsyncSession) -> None:
    before = {each.name: (each.waiting, each.dead) for each in await Jobs(session).queues()}
    await Jobs(session).submit(probes.echo, "now", queue="workflows")
    await Jobs(session).submit(probes.echo, "later", queue="workflows", delay=timedelta(hours=1))
    after = {each.name: (each.waiting, each.dead) for each in await Jobs(session).queues()}
    waiting, dead = before["workflows"]
    assert after["workflows"] == (waiting + 1, dead)
    await session.rollback()


async def finish(session: AsyncSession, job_id: UUID, status: Status = Status.SUCCEEDED) -> None:
    ended = {"status": status, "wake_at": None}
    await session.execute(update(jobs).where(jobs.c.id == job_id).values(ended))


@pytest.mark.parametrize(
    ("end", "lost"),
    [
        ("close", "2 jobs were submitted but never committed: probes.echo"),
        ("commit", None),
        ("rollback", None),
        ("error", None),
    ],
)
async def test_a_request_that_forgets_its_commit_is_logged(end: str, lost: str | None) -> None:
    """After a rollback or an error no warning is logged."""
    with capture_logs() as logs, suppress(ArithmeticError):
        async with asynccontextmanager(get_session)() as session:
            await Jobs(session).submit(probes.echo, "a", delay=timedelta(days=1))
            await Jobs(session).submit_many(probes.echo, [("b",)])
            if end == "error":
                raise ArithmeticError
            if end != "close":
                await getattr(session, end)()
    told = [line["lost"] for line in logs if line["event"] == "session.uncommitted"]
    assert told == [lost] * bool(lost)


async def test_what_was_rolled_back_to_a_savepoint_is_not_lost() -> None:
    with capture_logs() as logs:
        async with asynccontextmanager(get_session)() as session:
            savepoint = await session.begin_nested()
            async with session.begin_nested():
                await Jobs(session).submit(probes.echo, "a")
            await savepoint.rollback()
    assert [line for line in logs if line["event"] == "session.uncommitted"] == []
