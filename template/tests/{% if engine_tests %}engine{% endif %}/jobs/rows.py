"""Inserts, changes and reads jobs as rows of this process's own database."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select, update

from app.config import get_settings
from app.core.database import AsyncSessionLocal
from app.jobs import Jobs, Status
from app.jobs.contract import Task
from app.jobs.host import Host
from app.jobs.submit import submit_named
from app.jobs.table import db_time, jobs
from app.models import Order
from tests.service import eventually

QUEUE = "default"
BACKEND = get_settings().queues[QUEUE]


async def submit(what: Task[..., Any, Any], *args: Any, queue: str = QUEUE, **values: Any) -> UUID:
    """Submit a job, and set other values in its row."""
    async with AsyncSessionLocal() as session:
        job = await submit_named(session, what, what.serialize(*args), queue=queue)
        if values:
            await session.execute(update(jobs).where(jobs.c.id == job.id).values(values))
        await session.commit()
        return job.id


async def change(job_id: UUID, **values: Any) -> None:
    async with AsyncSessionLocal() as session:
        await session.execute(update(jobs).where(jobs.c.id == job_id).values(values))
        await session.commit()


async def row_of(job_id: UUID) -> Row[Any]:
    async with AsyncSessionLocal() as session:
        return (await session.execute(select(jobs).where(jobs.c.id == job_id))).one()


async def statuses(*job_ids: UUID) -> list[str]:
    return [(await row_of(job_id)).status for job_id in job_ids]


async def status_is(job_id: UUID, status: Status) -> Row[Any]:
    async def reached() -> Row[Any] | None:
        row = await row_of(job_id)
        return row if row.status == status else None

    return await eventually(reached)


async def orders_of(item: object) -> int:
    """How many orders of this item are committed."""
    async with AsyncSessionLocal() as session:
        count = select(func.count()).select_from(Order).where(Order.item == str(item))
        return (await session.scalars(count)).one()


async def database_now() -> datetime:
    async with AsyncSessionLocal() as session:
        return (await session.execute(select(db_time(0)))).scalar_one()


async def cancel(*job_ids: UUID) -> None:
    async with AsyncSessionLocal() as session:
        for job_id in job_ids:
            await Jobs(session).cancel(job_id)
        await session.commit()


async def idle(host: Host) -> None:
    """Wait until the host runs no job, and all outcomes are written."""

    async def is_idle() -> bool:
        return not host._claims and not host._running

    await eventually(is_idle)


async def end(host: Host, *job_ids: UUID) -> None:
    """Cancel these jobs of the host, and wait until it has stopped them."""
    await cancel(*job_ids)
    await host._extend()
    await idle(host)
