"""Packets to the broker vanish, on existing connections, or on all that are opened later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from devtools.servers import BROKER_OF
from tests.engine.broker import Broker
from tests.engine.delivery.probes import work
from tests.engine.delivery.proxied import with_broker_by_proxy
from tests.engine.delivery.proxy import Proxy
from tests.engine.delivery.world import World
from tests.service import eventually

SILENCE = 12  # seconds, about; more than twice the time that a worker waits for an answer

pytestmark = pytest.mark.backend(*BROKER_OF)


@pytest.fixture
async def proxied(
    backend: str, own_broker: Broker, tmp_path: Path
) -> AsyncIterator[tuple[World, Proxy]]:
    async with with_broker_by_proxy(backend, own_broker, tmp_path) as world:
        yield world


async def run(world: World, items: list[str]) -> None:
    """Submit jobs, which must succeed within half a minute, whatever the broker does."""
    ids = await world.submit_many(work, [[item, 0] for item in items])
    ids.append(await world.place_order())

    async def all_succeeded() -> bool:
        assert world.processes[world.host()].poll() is None
        return {(await world.row(job_id)).status for job_id in ids} == {"succeeded"}

    await eventually(all_succeeded, limit=30)
    assert [await world.effects(item) for item in items] == [1] * len(items)


async def test_a_service_is_well_soon_after_its_brokers_connections_went_silent(
    proxied: tuple[World, Proxy],
) -> None:
    world, proxy = proxied
    await run(world, ["before"])
    over = await world.submit(work, "over it", 4)
    await world.marked("over it runs")
    for name in ("first", "second"):
        proxy.forget()
        await run(world, [f"{name} {number}" for number in range(20)])
        await eventually(world.is_ready, limit=30)
        await run(world, [f"{name} after"])
    assert (await world.row_is(over, "succeeded")).attempts == 1


async def test_a_worker_outlives_a_broker_that_accepts_connections_and_says_nothing(
    proxied: tuple[World, Proxy],
) -> None:
    world, proxy = proxied
    await run(world, ["before"])
    proxy.fall_silent()
    for second in range(SILENCE):
        await run(world, [f"silent {second}"])
        await asyncio.sleep(1)
    proxy.remember()
    await eventually(world.is_ready, limit=30)
    await run(world, ["after"])
