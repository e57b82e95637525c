"""Two releases at once, and a broker that can't be relied on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from app.jobs.table import clock, jobs
from tests.broker import Broker
from tests.delivery import probes as delivered
from tests.delivery.world import World
from tests.service import eventually

GRACE = 60


@pytest.fixture
async def previous(backend: str, own_broker: Broker | None, tmp_path: Path) -> AsyncIterator[World]:
    """A release that doesn't know the task `delivered.alone`."""
    world = World(tmp_path, backend, own_broker, UNKNOWN_TASK_GRACE=str(GRACE))
    world.edit("tasks/delivered_probes.py", "delivered.alone", "delivered.of_old")
    await world.as_it_should_be()
    yield world
    await world.close()


async def test_a_task_of_the_next_release_waits_for_a_host_that_knows_it(previous: World) -> None:
    early = await previous.submit(delivered.alone, "early")
    unknown = await previous.submit(delivered.work, "unknown", 0, delay=timedelta(hours=1))
    renamed = update(jobs).where(jobs.c.id == unknown)
    async with previous.engine.begin() as connection:
        await connection.execute(renamed.values(task="no.such", run_at=clock(-GRACE - 1)))
    row = await previous.row_is(unknown, "dead")
    assert row.error.startswith("UnknownTask")
    await previous.row_is(await previous.submit(delivered.work, "after", 0), "succeeded")
    assert (await previous.row(early)).attempts == 0
    previous.edit("tasks/delivered_probes.py", "delivered.of_old", "delivered.alone")
    previous.start_hosts(2)
    assert (await asyncio.to_thread(previous.stop, previous.host()))[0] in (0, -15)
    row = await previous.row_is(early, "succeeded")
    assert (row.attempts, await previous.effects("early")) == (1, 1)


async def test_a_message_of_the_previous_format_costs_no_job(
    world: World, with_broker: Broker
) -> None:
    """It is dropped, and the job is pushed again as this release does it."""
    world.kill_all()
    before = await world.depth()  # of tests that killed their hosts
    job_id = await world.submit(delivered.work, "of old", 0, delay=timedelta(hours=1))
    await world.push_of_old(delivered.work.name, job_id)
    world.start_hosts()

    async def dropped() -> bool:
        return await world.depth() <= before

    await eventually(dropped)
    assert (await world.row(job_id)).attempts == 0
    async with world.engine.begin() as connection:  # instead of waiting for it
        due = update(jobs).where(jobs.c.id == job_id)
        await connection.execute(due.values(run_at=clock(0), wake_at=clock(0)))
    row = await world.row_is(job_id, "succeeded")
    assert (row.attempts, await world.effects("of old")) == (1, 1)
