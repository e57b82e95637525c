from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import SyncSessionLocal
from app.jobs import Jobs, Status
from app.jobs.table import clock, jobs
from app.models import Order, UserSession
from app.tasks.maintenance import (
    cleanup_expired_sessions,
    generate_daily_report,
    prune_finished_jobs,
)
from tests.engine import probes

DAY = 86_400


async def test_only_sessions_that_are_over_are_deleted(session: AsyncSession) -> None:
    await cleanup_expired_sessions(session)
    now, second = datetime.now(UTC), timedelta(seconds=1)
    over = [UserSession(user="a", expires_at=now - n * second) for n in (1, 100_000)]
    valid = UserSession(user="a", expires_at=now + 3600 * second)
    session.add_all([*over, valid])
    await session.flush()
    assert await cleanup_expired_sessions(session) == 2
    left = set(await session.scalars(select(UserSession.id)))
    assert valid.id in left
    assert left.isdisjoint({each.id for each in over})
    await session.rollback()


def test_the_report_counts_the_orders_of_a_day() -> None:
    now = datetime.now(UTC)
    ages = {"report-a": [0, 1, 23], "report-b": [23, 25], "report-c": [25]}
    with SyncSessionLocal() as session:
        for status, hours in ages.items():
            for age in hours:
                created = now - timedelta(hours=age)
                session.add(Order(item="book", quantity=1, status=status, created_at=created))
        session.flush()
        report = generate_daily_report(session)
        session.rollback()
    ours = {status: count for status, count in report.items() if status in ages}
    assert ours == {"report-a": 3, "report-b": 1}


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
