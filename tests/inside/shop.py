"""The tasks of a shop. `python -m app.tasks.shop` fills the database with their jobs.

The jobs really run, fail and wait. Only their times are invented afterwards.
"""

import asyncio
import random
from datetime import timedelta
from typing import Any
from uuid import UUID

from app.core.database import AsyncSessionLocal
from app.jobs import Definition, Interval, Job, Jobs, NonRetryable, Schedules, task
from app.jobs.backends import db_time, jobs
from sqlalchemy import select, update

REFUSED = "the bank refuses the card that ends in {:04}: insufficient funds"
NAMES = ("ada", "grace", "edsger", "barbara", "donald", "frances", "niklaus", "radia")
ENDED = ("succeeded", "dead")


@task(name="orders.charge_card", queue="orders", tries=1)
async def charge_card(order: int) -> dict[str, Any]:
    if order % 4 == 0:
        raise NonRetryable(REFUSED.format(order * 7919 % 10_000))
    return {"order": order, "receipt": f"R-{order:06}"}


@task(name="reports.export_month", queue="maintenance", timeout=timedelta(hours=1))
async def export_month(month: str) -> str:
    await asyncio.sleep(1800)
    return f"{month}.csv"


@task(name="customers.welcome", queue="notifications")
async def welcome(customer: str) -> str:
    return f"sent to {customer}"


async def main() -> None:
    async with AsyncSessionLocal() as session:
        ids = await submit(Jobs(session))
        await session.commit()
    await ended(ids)
    async with AsyncSessionLocal() as session:
        await make_up_times(session, ids)
        await steer(session)
        await session.commit()


async def submit(service: Jobs) -> list[UUID]:
    made: list[Job[Any]] = []
    for order, name in enumerate(NAMES * 2, 1001):
        made.append(await service.submit(charge_card, order))
        if order % 2:
            made.append(await service.submit(welcome, f"{name}@example.com", key=f"new:{order}"))
    await service.submit(export_month, "2026-10")
    for order in range(2001, 2004):
        await service.submit(charge_card, order, delay=timedelta(hours=1))
    return [job.id for job in made]


async def ended(ids: list[UUID]) -> None:
    waits = select(jobs.c.id).where(jobs.c.id.in_(ids), jobs.c.status.not_in(ENDED))
    while True:
        async with AsyncSessionLocal() as session:
            if (await session.execute(waits)).first() is None:
                return
        await asyncio.sleep(0.1)


async def make_up_times(session: Any, ids: list[UUID]) -> None:
    draw, at = random.Random(7), -30.0
    for job_id in reversed(ids):
        at -= draw.uniform(20, 400)
        times = {"created_at": db_time(at), "run_at": db_time(at), "started_at": db_time(at + 0.2)}
        values = times | {"finished_at": db_time(at + draw.uniform(0.3, 9))}
        await session.execute(update(jobs).where(jobs.c.id == job_id).values(values))
    hours_ago = update(jobs).where(jobs.c.run_at > db_time(60)).values(created_at=db_time(-9000))
    await session.execute(hours_ago)
    runs = update(jobs).where(jobs.c.task == export_month.name)
    await session.execute(runs.values(created_at=db_time(-95), started_at=db_time(-94)))


async def steer(session: Any) -> None:
    """Pause a queue, put a job into a queue that no process carries, and add a schedule."""
    await Jobs(session).pause("orders")
    waiting = [await Jobs(session).submit(charge_card, order) for order in range(3001, 3004)]
    stray = waiting[-1].id
    await session.execute(update(jobs).where(jobs.c.id == stray).values(queue="reports"))
    for at, job in zip((-8, -21), waiting, strict=False):
        times = {"created_at": db_time(at), "run_at": db_time(at)}
        await session.execute(update(jobs).where(jobs.c.id == job.id).values(times))
    every = Definition(
        trigger=Interval(minutes=15),
        args={"customer": "team@example.com"},
        misfire_grace=300,
        catch_up="latest",
        overlap="queue",
    )
    await Schedules(session).create("remind_team", welcome.name, every, paused=True)


if __name__ == "__main__":
    asyncio.run(main())
