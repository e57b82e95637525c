"""A broker loses some or all of its messages. Each job runs, because the table has it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from tests.engine.broker import Broker
from tests.engine.delivery.probes import work
from tests.engine.delivery.slots import all_slots_busy
from tests.engine.delivery.world import World
from tests.service import eventually

JOBS = 60


async def each(world: World) -> None:
    await lose(world, lambda number: True)


async def every_second(world: World) -> None:
    await lose(world, lambda number: number % 2 == 0)


async def all_data(world: World) -> None:
    world.broker.kill()
    await world.broker.start()


async def lose(world: World, is_lost: Callable[[int], bool]) -> None:
    messages = importlib.import_module(f"tests.engine.delivery.{world.backend}_messages")
    url = world.broker.env[world.broker.variable]
    await asyncio.to_thread(messages.lose, url, is_lost)


async def submit_into_the_broker(world: World, items: list[str]) -> list[UUID]:
    """Submit jobs, and wait until the broker has their messages: one each, or one for all."""
    before = await world.depth()
    ids = await world.submit_many(work, [[item, 0] for item in items])
    ids.append(await world.place_order())

    async def messages_wait() -> bool:
        return await world.depth() >= world.messages_of(before + JOBS)

    await eventually(messages_wait)
    return ids


@pytest.mark.parametrize("losing", [each, every_second, all_data])
async def test_messages_that_a_broker_loses_cost_no_job(
    world: World, with_broker: Broker, losing: Callable[[World], Awaitable[None]]
) -> None:
    name = losing.__name__
    items = [f"{name} {number}" for number in range(JOBS)]
    async with all_slots_busy(world, name):
        ids = await submit_into_the_broker(world, items)
        await losing(world)
    await world.all_are("succeeded", ids)
    assert [await world.effects(item) for item in items] == [1] * JOBS
    assert {(await world.row(job_id)).attempts for job_id in ids} == {1}
