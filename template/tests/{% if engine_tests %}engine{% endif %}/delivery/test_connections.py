"""PostgreSQL has no connection left for this service, because others hold them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import func, select

from app.jobs.table import jobs
from tests.engine.broker import Broker
from tests.engine.delivery.connection_probes import hold, hold_none, hold_sync
from tests.engine.delivery.database import Database, world_on
from tests.engine.delivery.probes import work
from tests.engine.delivery.world import World
from tests.service import eventually

CONNECTIONS = 30
SHORTAGE = 6  # seconds

pytestmark = pytest.mark.postgresql


class Small(Database):
    """A PostgreSQL that allows few connections."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET max_connections = {CONNECTIONS}".encode())
            connection.execute("ALTER SYSTEM SET log_min_messages = panic")  # omits refusals
        self.stop()
        self.start()

    @asynccontextmanager
    async def used_up(self) -> AsyncIterator[None]:
        """Take each connection that is free or becomes free, until the body ends."""
        held: list[psycopg.AsyncConnection[object]] = []

        async def take() -> None:
            while True:
                try:
                    held.append(await psycopg.AsyncConnection.connect(self.url))
                except psycopg.OperationalError:
                    refused.set()
                    await asyncio.sleep(0.05)

        refused = asyncio.Event()
        taking = asyncio.create_task(take())
        await asyncio.wait_for(refused.wait(), 20)
        yield
        taking.cancel()
        await asyncio.wait([taking])
        for connection in held:
            await connection.close()


@pytest.fixture
async def crowded(
    backend: str, own_broker: Broker | None, tmp_path: Path
) -> AsyncIterator[tuple[World, Small]]:
    database = await asyncio.to_thread(Small, tmp_path)
    async with world_on(database, backend, own_broker, tmp_path) as world:
        yield world, database


async def all_succeed(world: World) -> None:
    states = select(jobs.c.status, jobs.c.error).distinct()

    async def reached() -> bool:
        async with world.engine.connect() as connection:
            rows = (await connection.execute(states)).all()
        assert "dead" not in {row.status for row in rows}, rows
        return {row.status for row in rows} == {"succeeded"}

    await eventually(reached, limit=60)


async def test_a_connection_that_cannot_be_had_costs_no_job_a_try(
    crowded: tuple[World, Small],
) -> None:
    world, database = crowded
    await world.row_is(await world.submit(work, "warm", 0), "succeeded")
    items = [f"crowded {number}" for number in range(30)]
    async with database.used_up():
        await world.submit_many(hold, [[item] for item in items[::2]])
        await world.submit_many(hold_sync, [[item] for item in items[1::2]])
        await world.submit_many(hold_none, [[]] * 10)
        await asyncio.sleep(SHORTAGE)
    await all_succeed(world)
    assert [await world.effects(item) for item in items] == [1] * len(items)
    counted = func.max(jobs.c.attempts - jobs.c.max_attempts)  # 0: only the last try counted
    found = select(func.max(jobs.c.crashes), counted, func.count(jobs.c.error))
    async with world.engine.connect() as connection:
        row = (await connection.execute(found.where(jobs.c.task.like("delivered.hold%")))).one()
    assert tuple(row) == (0, 0, 0)
    assert all(process.poll() is None for process in world.processes.values())
