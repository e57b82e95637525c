"""Two replicas of the API are stopped in turn. Clients use those that `ready` reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import cycle
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from app.models import Order
from tests.engine.broker import Broker
from tests.engine.delivery.world import World
from tests.service import API_ENDED, START_LIMIT, eventually

REPLICAS = ("api", "api-2")
ROUNDS = 2
CLIENTS = 8
DRAIN = 10  # seconds


class Balancer:
    """Asks the replicas ten times a second whether they are ready. Orders go to those that are."""

    def __init__(self, world: World) -> None:
        self._urls = {name: f"http://127.0.0.1:{world.ports[name]}" for name in REPLICAS}
        self.ready: set[str] = set()
        self.accepted = self.open = 0
        self.failed: list[str] = []

    async def watch(self, name: str) -> None:
        async with httpx.AsyncClient(base_url=self._urls[name], timeout=5) as client:
            while True:
                try:
                    ready = (await client.get("/health/ready")).status_code == 200
                except httpx.TransportError:
                    ready = False
                (self.ready.add if ready else self.ready.discard)(name)
                await asyncio.sleep(0.1)

    async def post(self, keep_alive: int) -> None:
        """Post orders without end. With `keep_alive` 0 each request opens a connection."""
        limits = httpx.Limits(max_keepalive_connections=keep_alive)
        async with httpx.AsyncClient(timeout=30, limits=limits) as client:
            for name in cycle(REPLICAS):
                if name in self.ready:
                    await self._post(client, name)
                await asyncio.sleep(0.005)

    async def _post(self, client: httpx.AsyncClient, name: str) -> None:
        order = {"item": "rolling", "quantity": 1}
        self.open += 1
        try:
            answer = await client.post(f"{self._urls[name]}/orders", json=order)
        except httpx.TransportError as error:
            self.failed.append(f"{name}: {error!r}")
        else:
            assert answer.status_code == 201, answer.text
            self.accepted += 1
        finally:
            self.open -= 1


@pytest.fixture
async def replicated(
    backend: str, own_broker: Broker | None, tmp_path: Path
) -> AsyncIterator[World]:
    world = World(tmp_path, backend, own_broker, DRAIN_SECONDS=str(DRAIN))
    await world.as_it_should_be()
    world.start("api-2")
    yield world
    await world.close()


async def test_a_rolling_stop_resets_no_connection(replicated: World) -> None:
    balancer = Balancer(replicated)

    async def all_ready() -> bool:
        return balancer.ready == set(REPLICAS)

    async def all_answered() -> bool:
        return balancer.open == 0

    async with asyncio.TaskGroup() as group:
        endless = [group.create_task(balancer.watch(name)) for name in REPLICAS]
        endless += [group.create_task(balancer.post(n % 2)) for n in range(CLIENTS)]
        for name in REPLICAS * ROUNDS:
            await eventually(all_ready, START_LIMIT)
            assert await asyncio.to_thread(replicated.stop, name) == [API_ENDED]
            await asyncio.to_thread(replicated.start, name)
        await eventually(all_ready, START_LIMIT)
        for task in endless[:2]:
            task.cancel()
        balancer.ready.clear()
        await eventually(all_answered, START_LIMIT)
        for task in endless[2:]:
            task.cancel()
    assert balancer.failed == []
    assert balancer.accepted > 100
    count = select(func.count()).where(Order.item == "rolling")
    async with replicated.engine.connect() as connection:
        assert (await connection.execute(count)).scalar_one() == balancer.accepted
