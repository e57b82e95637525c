"""Hosts of two releases at once, and messages of an old format."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, insert, select, update

from app.jobs import Status
from app.jobs.table import db_time, jobs, known_tasks, processes
from tests.engine.broker import Broker
from tests.engine.delivery import probes as delivered
from tests.engine.delivery.world import World
from tests.service import eventually

GRACE = 60
TAKES = "item: str, seconds: float) -> None:"


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
    backlog = await previous.submit(delivered.alone, "backlog", delay=timedelta(hours=1))
    unknown = await previous.submit(delivered.work, "unknown", 0, delay=timedelta(hours=1))
    renamed = update(jobs).where(jobs.c.id == unknown)

    async def judged() -> bool:
        async with previous.engine.connect() as connection:
            return (await connection.execute(select(known_tasks.c.name))).first() is not None

    await eventually(judged)
    async with previous.engine.begin() as connection:
        await connection.execute(renamed.values(task="no.such", run_at=db_time(-GRACE - 1)))
        long_due = update(jobs).where(jobs.c.id == backlog)
        await connection.execute(long_due.values(run_at=db_time(-GRACE - 1)))
        known = {"name": "no.such", "seen_at": db_time(-GRACE - 1)}
        await connection.execute(insert(known_tasks).values(known))
    row = await previous.row_is(unknown, "dead")
    assert row.error.startswith("UnknownTask")
    await previous.row_is(await previous.submit(delivered.work, "after", 0), "succeeded")
    assert (await previous.row(early)).attempts == 0
    previous.edit("tasks/delivered_probes.py", "delivered.of_old", "delivered.alone")
    previous.start_hosts(2)
    assert (await asyncio.to_thread(previous.stop, previous.host()))[0] in (0, -15)
    for job_id, item in ((early, "early"), (backlog, "backlog")):
        row = await previous.row_is(job_id, "succeeded")
        assert (row.attempts, await previous.effects(item)) == (1, 1)


async def test_an_argument_of_the_next_release_waits_for_a_host_that_takes_it(
    previous: World,
) -> None:
    previous.edit("tasks/delivered_probes.py", TAKES, "item: str) -> None:\n    seconds = 0.0")
    previous.kill_all()
    await previous.as_it_should_be()
    job_id = await previous.submit(delivered.write_first, "argued", 0)

    async def refused_again() -> bool:
        row = await previous.row(job_id)
        return bool(row.status == Status.PENDING and row.attempts >= 2)

    await eventually(refused_again)
    previous.edit("tasks/delivered_probes.py", "item: str) -> None:\n    seconds = 0.0", TAKES)
    previous.start_hosts(2)
    assert (await asyncio.to_thread(previous.stop, previous.host()))[0] in (0, -15)
    row = await previous.row_is(job_id, "succeeded")
    assert (row.max_attempts - row.attempts, row.crashes) == (delivered.write_first.tries - 1, 0)
    assert await previous.effects("argued") == 1


async def test_each_host_says_that_it_lives(healthy: World) -> None:
    own = select(processes).where(processes.c.backend == healthy.backend)

    async def said() -> Sequence[Row[Any]]:
        async with healthy.engine.connect() as connection:
            rows = (await connection.execute(own)).all()
        return rows if len(rows) == 2 else []

    first, second = await eventually(said)
    assert first.pid != second.pid
    for row in (first, second):
        assert row.slots > 0
        assert row.tasks[delivered.work.name] == delivered.work.signature


async def test_a_message_of_the_previous_format_costs_no_job(
    world: World, with_broker: Broker
) -> None:
    """The message is dropped, and the job gets a message of this release's format."""
    world.kill_all()
    before = await world.depth()  # left by tests that killed their hosts
    job_id = await world.submit(delivered.work, "of old", 0, delay=timedelta(hours=1))
    await world.push_of_old(delivered.work.name, job_id)
    world.start_hosts()

    async def dropped() -> bool:
        return await world.depth() <= before

    await eventually(dropped)
    assert (await world.row(job_id)).attempts == 0
    async with world.engine.begin() as connection:  # so that the test needn't wait an hour
        due = update(jobs).where(jobs.c.id == job_id)
        await connection.execute(due.values(run_at=db_time(0), wake_at=db_time(0)))
    row = await world.row_is(job_id, "succeeded")
    assert (row.attempts, await world.effects("of old")) == (1, 1)
