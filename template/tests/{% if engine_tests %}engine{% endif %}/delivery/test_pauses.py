"""A paused queue starts no job, even after a restart, and loses none until it is resumed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from app.jobs.table import HEAD_START, db_time, jobs
from tests.engine.delivery.probes import work
from tests.engine.delivery.world import World
from tests.service import eventually

PAUSED, OTHER = "default", "notifications"
HEEDED = timedelta(seconds=2)


async def change(world: World, what: str) -> None:
    path = f"/queues/{PAUSED}/{what}"
    answer = await world.client.post(path, headers=world.operator)
    assert answer.status_code == 200, answer.text


@asynccontextmanager
async def paused(world: World) -> AsyncIterator[datetime]:
    """Pause the queue until the body ends. Yields the time of the pause by the database's clock."""
    await change(world, "pause")
    async with world.engine.connect() as connection:
        yield (await connection.execute(select(db_time(0)))).scalar_one()
    await change(world, "resume")


async def some_have_run(world: World, ids: list[UUID]) -> None:
    async def some() -> bool:
        return any([(await world.row(each)).status == "succeeded" for each in ids[:5]])

    await eventually(some)


async def runs_others(world: World, item: str) -> None:
    """Wait until the hosts have looked at the table and at their messages since this call."""
    other = await world.submit(work, item, 0, queue=OTHER)
    await world.row_is(other, "succeeded")


async def last_sign(world: World) -> Any:
    """When a job of the queue was last started, or a message was last sent for one."""
    rung = func.max(jobs.c.wake_at).filter(jobs.c.status == "pending")
    found = select(func.max(jobs.c.started_at), rung).where(jobs.c.queue == PAUSED)
    async with world.engine.connect() as connection:
        started, late = (await connection.execute(found)).one()
    return max(started, late - timedelta(seconds=HEAD_START)) if late else started


async def test_nothing_of_a_paused_queue_starts(world: World) -> None:
    """No job starts, under load or after a restart. A running job goes on, and each runs once."""
    over = await world.submit(work, "over", 2, queue=PAUSED)
    await world.marked("over runs")
    calls = [[f"paused {number}", 0.02] for number in range(200)]
    ids = await world.submit_many(work, calls, queue=PAUSED)
    await some_have_run(world, ids)
    async with paused(world) as since:
        more = await world.submit_many(work, [["more", 0]], queue=PAUSED)
        await world.row_is(over, "succeeded")
        await runs_others(world, "before the restart")
        await asyncio.to_thread(world.stop, world.host())
        await world.as_it_should_be()
        await runs_others(world, "after the restart")
        assert await last_sign(world) < since + HEEDED
        assert (await world.row(more[0])).status == "pending"
    await world.all_are("succeeded", [*ids, *more])
    assert {(await world.row(job_id)).attempts for job_id in [*ids, *more]} == {1}
    assert [await world.effects(str(item)) for item, _ in calls] == [1] * 200
