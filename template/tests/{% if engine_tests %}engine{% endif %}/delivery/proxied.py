"""Worlds whose processes reach their database or their broker by a proxy."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from sqlalchemy import func, make_url, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.core.database import async_url
from app.jobs.table import jobs
from tests.engine import probes
from tests.engine.broker import Broker
from tests.engine.delivery import probes as delivered
from tests.engine.delivery.proxy import Proxy
from tests.engine.delivery.world import World
from tests.service import copy_database, eventually

LEASE = 6
LONGEST = 12  # seconds of a task; after that time PostgreSQL ends a silent transaction
BURST = 10  # orders at once, each of which needs a connection of the API
MAX_CRASHES = 3


class Proxied(World):
    """A world whose processes reach their database by a proxy. Tests reach it directly."""

    def __init__(self, folder: Path, backend: str, broker: Broker | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        direct = make_url(copy_database(os.environ["EMPTY_DATABASE"], folder))
        self.proxy = Proxy(direct.port or 5432, direct.host or "127.0.0.1")
        by_proxy = direct.set(host="127.0.0.1", port=self.proxy.port)
        url = by_proxy.render_as_string(hide_password=False)
        super().__init__(folder, backend, broker, DATABASE_URL=url, LEASE=str(LEASE))
        self.engine = create_async_engine(async_url(direct.render_as_string(hide_password=False)))
        self.items: list[str] = []
        self.ids: list[UUID] = []

    async def close(self) -> None:
        await super().close()
        self.proxy.close()

    async def get_busy(self, name: str) -> None:
        """Start jobs of each kind: some hold a connection, others will ask for one."""
        long = {
            f"{name} slept": (delivered.work, 8, "runs"),
            f"{name} wrote": (delivered.write_first, 4, "has written"),
            f"{name} sync": (delivered.work_sync, 2, "runs"),
        }
        for item, (task, seconds, _) in long.items():
            self.ids.append(await self.submit(task, item, seconds))
        for item, (*_, mark) in long.items():
            await self.marked(f"{item} {mark}")
        short = [f"{name} {number}" for number in range(20)]
        self.ids += await self.submit_many(delivered.work, [[item, 0.1] for item in short])
        self.ids += await self.submit_many(probes.work, [[1.0]] * 3)
        self.items += [*long, *short]

    async def order(self) -> bool:
        with suppress(httpx.TransportError):
            answer = await self.client.post("/orders", json={"item": "tea", "quantity": 1})
            return answer.status_code == 201
        return False

    async def burst(self) -> bool:
        return all(await asyncio.gather(*(self.order() for _ in range(BURST))))

    async def runs_jobs(self) -> None:
        self.ids.append(await self.submit(probes.echo, "well"))
        await self.row_is(self.ids[-1], "succeeded", limit=30)

    async def answers(self) -> None:
        """Wait until the API accepts a burst of orders."""
        await eventually(self.burst, limit=30)

    async def each_ran_once(self, limit: float) -> None:
        await self.all_are("succeeded", self.ids, limit)
        assert [await self.effects(item) for item in self.items] == [1] * len(self.items)
        async with self.engine.connect() as connection:
            most = await connection.scalar(select(func.max(jobs.c.crashes)))
        assert most is not None
        assert most < MAX_CRASHES

    async def lets_go(self) -> None:
        """Wait until PostgreSQL has no more work from this world's connections."""
        mine = "datname = current_database() AND pid <> pg_backend_pid()"
        busy = text(f"SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND {mine}")

        async def reached() -> bool:
            async with self.engine.connect() as connection:
                return not (await connection.execute(busy)).scalar_one()

        await eventually(reached, limit=60)

    async def be_hasty(self) -> None:
        """Shorten the tasks' timeouts, so that silent connections end within the test."""
        self.shorten_timeouts(LONGEST)
        await self.as_it_should_be()


@asynccontextmanager
async def with_broker_by_proxy(
    backend: str, broker: Broker, folder: Path
) -> AsyncIterator[tuple[World, Proxy]]:
    await broker.start()
    [(variable, direct)] = broker.env.items()
    url = urlsplit(direct)
    proxy = Proxy(url.port or 0)
    netloc = url.netloc.replace(f":{url.port}", f":{proxy.port}")
    by_proxy = {variable: url._replace(netloc=netloc).geturl()}
    world = World(folder, backend, broker, **by_proxy)
    try:
        await world.as_it_should_be()
        yield world, proxy
    finally:
        await world.close()
        proxy.close()
