from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import SyncSessionLocal
from app.jobs import JobNotFoundError
from app.models import Order, UserSession
from app.tasks.maintenance import (
    cleanup_expired_sessions,
    generate_daily_report,
    prune_finished_jobs,
)
from app.tasks.notifications import send_email
from tests.jobs import OwnJobs


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


async def test_jobs_that_succeeded_are_pruned(own_jobs: OwnJobs) -> None:
    sent = await own_jobs.run(send_email, "a@example.com", "hello")
    assert await prune_finished_jobs() == 0
    assert await prune_finished_jobs(days=0) == 1
    with pytest.raises(JobNotFoundError):
        await own_jobs.row(sent.id)
