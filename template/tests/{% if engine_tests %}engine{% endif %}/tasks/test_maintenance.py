from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Column, ForeignKey, MetaData, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import jobs_engine
from app.jobs import Interval, Jobs, Schedule, Status
from app.jobs.dispatcher import run_due
from app.jobs.finding import prunable
from app.jobs.schedules import definition_of
from app.jobs.table import db_time, jobs, schedules
from app.tasks.maintenance import prune_finished_jobs
from tests.engine import probes
from tests.engine.jobs.statements import plans_of

pytestmark = pytest.mark.usefixtures("no_other_jobs")

DAY = 86_400


async def ended(session: AsyncSession, status: Status, days: float) -> UUID:
    job = await Jobs(session).submit(probes.echo, "a")
    then = db_time(-DAY * days)
    values = {"status": status, "created_at": then, "finished_at": then, "wake_at": None}
    await session.execute(update(jobs).where(jobs.c.id == job.id).values(values))
    return job.id


async def more_than_a_batch(session: AsyncSession) -> UUID:
    """Make old jobs. Returns the one that is deleted last."""
    *_, last = await Jobs(session).submit_many(probes.echo, [("a",)] * 5001)
    old = {"status": Status.SUCCEEDED, "finished_at": db_time(-8 * DAY), "wake_at": None}
    await session.execute(update(jobs).values(old | {"created_at": db_time(-9 * DAY)}))
    latest = update(jobs).where(jobs.c.id == last.id).values(created_at=db_time(-8 * DAY))
    await session.execute(latest)
    await session.commit()
    return last.id


@asynccontextmanager
async def kept(job_id: UUID) -> AsyncIterator[None]:
    """While another table names the job, it can't be deleted."""
    other = Table("other", MetaData(), Column("job_id", ForeignKey(jobs.c.id)))
    async with jobs_engine.begin() as connection:
        await connection.run_sync(other.create)
        await connection.execute(insert(other).values(job_id=job_id))
    try:
        yield
    finally:
        async with jobs_engine.begin() as connection:
            await connection.run_sync(other.drop)


async def test_old_jobs_are_pruned_but_never_dead_or_unfinished_ones(
    session: AsyncSession,
) -> None:
    old = {await ended(session, each, 7.1) for each in (Status.SUCCEEDED, Status.CANCELLED)}
    recent = {await ended(session, each, 6.9) for each in (Status.SUCCEEDED, Status.CANCELLED)}
    dead = await ended(session, Status.DEAD, 100)
    waits = (await Jobs(session).submit(probes.echo, "a", delay=timedelta(days=9))).id
    await session.commit()
    assert await prune_finished_jobs() == len(old)
    assert set(await session.scalars(select(jobs.c.id))) == {*recent, dead, waits}
    await session.rollback()
    assert await prune_finished_jobs(days=6) == len(recent)
    assert set(await session.scalars(select(jobs.c.id))) == {dead, waits}


async def test_a_kept_key_is_never_pruned_unless_it_is_a_ticks(session: AsyncSession) -> None:
    """A late retry with this key runs nothing, however long ago its job ended."""
    for key, keep_key in (("kept", True), ("not kept", False), (None, True)):
        await Jobs(session).submit(probes.echo, "a", key=key, keep_key=keep_key)
    wanted = definition_of(Schedule("hourly", Interval(hours=1), probes.echo, ("tick",)))
    row = {"id": "hourly", "task": probes.echo.name, "next_tick": db_time(-1), "definition": wanted}
    await session.execute(insert(schedules).values(row))
    await session.commit()
    await run_due()
    last = select(schedules.c.last_job_id).where(schedules.c.id == "hourly")
    tick = await session.scalar(last)
    assert tick and (await Jobs(session).get(tick)).keep_key
    await session.execute(delete(schedules).where(schedules.c.id == "hourly"))
    then = db_time(-999 * DAY)
    old = {"status": Status.SUCCEEDED, "created_at": then, "finished_at": then, "wake_at": None}
    await session.execute(update(jobs).values(old))
    await session.commit()
    assert await prune_finished_jobs() >= 3
    assert list(await session.scalars(select(jobs.c.key))) == ["kept"]
    late = await Jobs(session).submit(probes.echo, "a", key="kept", keep_key=True)
    assert not late.created
    await session.commit()


async def test_what_a_batch_has_deleted_stays_deleted(session: AsyncSession) -> None:
    last = await more_than_a_batch(session)
    async with kept(last):
        with pytest.raises(IntegrityError):
            await prune_finished_jobs()
    assert list(await session.scalars(select(jobs.c.id))) == [last]
    await session.rollback()


async def test_more_old_jobs_than_a_batch_are_pruned(session: AsyncSession) -> None:
    await more_than_a_batch(session)
    assert await prune_finished_jobs() == 5001
    assert list(await session.scalars(select(jobs.c.id))) == []


async def test_jobs_that_ended_lately_are_not_read() -> None:
    """There may be millions of them, and SQLite's only lock is held meanwhile."""
    old = prunable(Status.SUCCEEDED, timedelta(days=7), 5000, None)
    [plan] = await plans_of(lambda connection: connection.execute(old), bitmaps=False)
    assert re.search(r"jobs_ended.*created_at\s*<", plan, re.DOTALL), plan
