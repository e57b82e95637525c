from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import Jobs, Status
from app.jobs.table import clock, jobs
from app.tasks.maintenance import prune_finished_jobs
from tests.engine import probes

DAY = 86_400


async def ended(session: AsyncSession, status: Status, days: float) -> UUID:
    job = await Jobs(session).submit(probes.echo, "a")
    values = {"status": status, "finished_at": clock(-DAY * days), "wake_at": None}
    await session.execute(update(jobs).where(jobs.c.id == job.id).values(values))
    return job.id


async def test_old_jobs_are_pruned_but_never_dead_or_unfinished_ones(
    session: AsyncSession,
) -> None:
    await prune_finished_jobs(session)
    old = {await ended(session, each, 7.1) for each in (Status.SUCCEEDED, Status.CANCELLED)}
    recent = {await ended(session, each, 6.9) for each in (Status.SUCCEEDED, Status.CANCELLED)}
    dead = await ended(session, Status.DEAD, 100)
    waits = (await Jobs(session).submit(probes.echo, "a", delay=timedelta(days=9))).id
    assert await prune_finished_jobs(session) == 2
    left = set(await session.scalars(select(jobs.c.id)))
    assert left.isdisjoint(old)
    assert left >= {*recent, dead, waits}
    assert await prune_finished_jobs(session, days=6) == 2
    await session.rollback()
