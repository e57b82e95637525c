"""Housekeeping, mostly on a schedule (`schedules.py`)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.core.database import JobSession
from app.jobs import Jobs, task
from app.models import Order, UserSession

PAUSE = 0.1  # seconds after each batch, in which others write: SQLite has one writer at a time


@task(queue="maintenance", max_running=1)
async def cleanup_expired_sessions(db: AsyncSession) -> int:
    """Delete user sessions that have expired. Returns how many."""
    expired = delete(UserSession).where(UserSession.expires_at < datetime.now(UTC))
    return len((await db.execute(expired.returning(UserSession.id))).all())


@task(queue="maintenance", max_running=1)
def generate_daily_report(db: Session) -> dict[str, int]:
    """Count the orders of the last day by status. It is sync, and so it runs in a thread."""
    since = datetime.now(UTC) - timedelta(days=1)
    per_status = select(Order.status, func.count()).where(Order.created_at >= since)
    return dict(db.execute(per_status.group_by(Order.status)).all())


@task(queue="maintenance", max_running=1)
async def prune_finished_jobs(days: int = 7) -> int:
    """Delete jobs that succeeded or were cancelled so many days ago.

    Dead jobs are kept, and so are jobs that were submitted with `keep_key`. Each batch has a commit
    of its own, so that it stays deleted even if the try ends before the others.
    """
    pruned = 0
    async with JobSession() as db:
        jobs = Jobs(db)
        while batch := await jobs.prune(timedelta(days=days)):
            await db.commit()
            pruned += batch
            await asyncio.sleep(PAUSE)
    return pruned
