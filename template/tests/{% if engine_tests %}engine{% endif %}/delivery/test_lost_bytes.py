"""The network loses bytes in the middle of a connection, or ends one of its directions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from devtools.servers import BROKER_OF
from tests.engine.broker import Broker
from tests.engine.delivery.probes import work
from tests.engine.delivery.proxied import Proxied, with_broker_by_proxy
from tests.engine.delivery.proxy import Damage

SHARE = 0.03  # of the parts of a connection that are forwarded at once
DAMAGED = 8  # seconds


@pytest.mark.postgresql
@pytest.mark.parametrize("seed", [1, 2])
async def test_bytes_that_are_lost_on_the_way_to_the_database_cost_no_job(
    backend: str, own_broker: Broker | None, tmp_path: Path, seed: int
) -> None:
    world, damage = Proxied(tmp_path, backend, own_broker), Damage(seed, SHARE)
    await world.be_hasty()
    try:
        await world.get_busy("before")
        async with world.supervised():
            world.proxy.damage = damage
            for second in range(DAMAGED):
                world.items += [f"damaged {second} {number}" for number in range(5)]
                world.ids += await world.submit_many(work, [[i, 0.1] for i in world.items[-5:]])
                await asyncio.gather(world.burst(), asyncio.sleep(1))
            world.proxy.damage = None
            await asyncio.gather(world.runs_jobs(), world.answers())
            await world.each_ran_once(limit=90)
        assert damage.done > 10
    finally:
        await world.close()


@pytest.mark.backend(*BROKER_OF)
@pytest.mark.parametrize("seed", [1, 2])
async def test_bytes_that_are_lost_on_the_way_to_the_broker_cost_no_job(
    backend: str, own_broker: Broker, tmp_path: Path, seed: int
) -> None:
    damage = Damage(seed, SHARE)
    async with (
        with_broker_by_proxy(backend, own_broker, tmp_path) as (world, proxy),
        world.supervised(),
    ):
        proxy.damage = damage
        ids, items = [], [f"damaged {number}" for number in range(40)]
        for number, item in enumerate(items):
            ids.append(await world.submit(work, item, 0.1))
            ids += [await world.place_order()] if number % 4 == 0 else []
            await asyncio.sleep(0.2)
        proxy.damage = None
        await world.all_are("succeeded", ids, limit=60)
        assert [await world.effects(item) for item in items] == [1] * len(items)
        assert damage.done > 0
