"""Hosts go on with the table alone while their broker is away or silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from tests.engine.broker import Broker
from tests.engine.delivery.probes import work
from tests.engine.delivery.world import World
from tests.service import eventually

OUTAGE = 8  # seconds, about


@asynccontextmanager
async def away(broker: Broker) -> AsyncIterator[None]:
    broker.kill()
    try:
        yield
    finally:
        await broker.start()


@asynccontextmanager
async def silent(broker: Broker) -> AsyncIterator[None]:
    with broker.frozen():
        yield


async def has_outlived_it(world: World) -> None:
    """The host runs another job, and its process hasn't ended."""
    job_id = await world.place_order()

    async def succeeded() -> bool:
        assert world.processes[world.host()].poll() is None
        return bool((await world.row(job_id)).status == "succeeded")

    await eventually(succeeded, limit=30)


@pytest.mark.parametrize("outage", [away, silent])
async def test_jobs_run_while_the_broker_does_not_answer(
    world: World,
    with_broker: Broker,
    outage: Callable[[Broker], AbstractAsyncContextManager[None]],
) -> None:
    name = outage.__name__
    await world.row_is(await world.place_order(), "succeeded")  # so that all have connected
    over = await world.submit(work, f"{name} over it", OUTAGE / 2)
    await world.marked(f"{name} over it runs")
    items = [[f"{name} {second} {n}" for n in range(3)] for second in range(OUTAGE)]
    async with outage(with_broker):
        for second in items:
            ids = await world.submit_many(work, [[item, 0] for item in second])
            await world.all_are("succeeded", ids)  # before the broker is back
            await asyncio.sleep(1)
        assert (await world.row_is(over, "succeeded")).attempts == 1
        assert not await world.is_ready()
    assert [await world.effects(item) for second in items for item in second] == [1] * 3 * OUTAGE
    await eventually(world.is_ready)
    await has_outlived_it(world)
