"""Housekeeping, mostly on a schedule (`schedules.py`)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.jobs import Jobs, task
from app.models import Order, UserSession


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
async def prune_finished_jobs(db: AsyncSession, days: int = 7) -> int:
    """Delete jobs that succeeded or were cancelled so many days ago. Dead jobs are kept."""
    return await Jobs(db).prune(timedelta(days=days))
