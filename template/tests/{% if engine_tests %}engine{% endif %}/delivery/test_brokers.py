"""The broker is away, silent, or has lost all its data."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select

from app.jobs.table import HEAD_START, db_time, jobs
from tests.engine import probes
from tests.engine.broker import Broker
from tests.engine.delivery import probes as delivered
from tests.engine.delivery.slots import all_slots_busy
from tests.engine.delivery.world import World
from tests.service import START_LIMIT, eventually

TAKEN = 10  # messages that a worker may have taken before their time
CHECKPOINTS = 5  # messages that look for lost ones
AT_ONCE, PUSH_TIMEOUT = 10, 30  # seconds; a request that waited for the broker would take longer


@pytest.fixture
def patient(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The world, with an API that gives the broker much time."""
    monkeypatch.setitem(world.env, "PUSH_TIMEOUT", str(PUSH_TIMEOUT))
    world.kill("api")
    yield world.start("api")
    world.kill("api")


async def placed_at_once(world: World) -> UUID:
    return await asyncio.wait_for(world.place_order(), AT_ONCE)


async def holds(world: World, messages: int) -> None:
    async def reached() -> bool:
        return await world.depth() >= messages

    await eventually(reached, limit=60)


async def is_down(world: World) -> None:
    live, ready = [await world.client.get(f"/health/{probe}") for probe in ("live", "ready")]
    assert live.status_code == 200
    assert (ready.status_code, ready.json()["data"][world.backend]) == (503, "down")
    assert ready.json()["data"]["database"] == "ok"


async def test_orders_are_accepted_at_once_while_the_broker_is_away(
    patient: World, with_broker: Broker
) -> None:
    placed = [await patient.place_order()]  # so that the producer is connected
    with_broker.kill()
    placed += [await placed_at_once(patient) for _ in range(3)]
    await is_down(patient)
    patient.kill("api")
    patient.start("api")  # it boots without the broker, and has never been connected to it
    placed += [await placed_at_once(patient) for _ in range(3)]
    await is_down(patient)
    await with_broker.start()
    await patient.all_are("succeeded", placed)
    await eventually(patient.is_ready, START_LIMIT)


async def test_orders_are_accepted_at_once_while_the_broker_is_silent(
    patient: World, with_broker: Broker
) -> None:
    placed = [await patient.place_order()]
    with with_broker.frozen():
        placed += [await placed_at_once(patient) for _ in range(3)]
        await is_down(patient)
        patient.kill("api")
        patient.start("api")
        placed += [await placed_at_once(patient) for _ in range(3)]
        await is_down(patient)
    await patient.all_are("succeeded", placed)


async def test_a_broker_that_loses_all_its_data_loses_no_job(
    world: World, with_broker: Broker
) -> None:
    items = [f"waits {n}" for n in range(200)]
    async with all_slots_busy(world, "lost") as running:
        waiting = await world.submit_many(delivered.work, [[item, 0] for item in items])
        await holds(world, world.messages_of(190))  # a worker may have taken some
        with_broker.kill()
        await with_broker.start()
    await world.all_are("succeeded", waiting, limit=120)
    effects = [await world.effects(item) for item in running + items]
    assert effects == [1] * (world.slots + 200)


async def test_a_delayed_job_waits_in_the_table_and_runs_once(
    world: World, with_broker: Broker
) -> None:
    """No message waits in the broker, whose time limits for messages don't matter then."""
    world.kill(world.host())
    before = await world.depth()
    job_id = await world.submit(delivered.work, "delayed", 0, delay=timedelta(seconds=4))
    month = await world.submit(delivered.work, "in a month", 0, delay=timedelta(days=30))
    await asyncio.sleep(2)
    assert await world.depth() == before
    world.start_hosts()
    row = await world.row_is(job_id, "succeeded")
    assert row.started_at >= row.run_at
    assert (row.attempts, await world.effects("delayed")) == (1, 1)
    assert (await world.row(month)).attempts == 0


@pytest.mark.parametrize("count", [1000, pytest.param(5000, marks=pytest.mark.slow)])
async def test_what_waits_for_a_worker_is_not_pushed_on_and_on(
    world: World, with_broker: Broker, count: int
) -> None:
    """The number of messages in the broker is bounded, however many jobs wait, and how long."""
    newest = select(func.max(jobs.c.run_at) < db_time(-3 * HEAD_START))
    bound = world.messages_of(count)
    async with all_slots_busy(world, f"waiting {count}"):
        waiting = await world.submit_many(probes.echo, [["a"]] * count)
        await holds(world, bound - TAKEN)
        long_ago = newest.where(jobs.c.id.in_(waiting[::100]))

        async def all_were_late() -> bool:
            async with world.engine.connect() as connection:
                return bool((await connection.execute(long_ago)).scalar_one())

        await eventually(all_were_late, limit=90)
        assert bound - TAKEN <= await world.depth() <= bound + CHECKPOINTS
    await world.all_are("succeeded", waiting, limit=240)
