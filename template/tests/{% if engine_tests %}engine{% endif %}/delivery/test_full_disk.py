"""PostgreSQL's disk is full, until somebody frees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.engine.broker import Broker
from tests.engine.delivery import probes
from tests.engine.delivery.database import Database, world_on
from tests.engine.delivery.small_disk import SmallDisk, small_disk
from tests.engine.delivery.world import World
from tests.service import eventually

ORDER = {"item": "tea", "quantity": 1}

pytestmark = pytest.mark.postgresql


@pytest.fixture
async def fillable(
    backend: str, own_broker: Broker | None, tmp_path: Path
) -> AsyncIterator[tuple[World, Database, SmallDisk]]:
    with small_disk() as disk:
        database = await asyncio.to_thread(Database, disk.folder, keep=True)
        async with world_on(database, backend, own_broker, tmp_path) as world:
            yield world, database, disk


@contextmanager
def backup(database: Database) -> Iterator[None]:
    """Read, as a backup does. Until it ends nobody may reuse the space of old rows."""
    with psycopg.connect(database.url) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT 1")
        yield


def fill_the_log(database: Database) -> None:
    """Write until PostgreSQL's own log needs another file. Then the server ends by itself."""
    written = "SELECT pg_logical_emit_message(false, '', repeat('x', 100000))"
    with pytest.raises(psycopg.OperationalError), psycopg.connect(database.url) as connection:
        while True:
            connection.execute(written)


async def begin(world: World, *items: str) -> list[UUID]:
    """Start jobs that run until they may end."""
    ids = await world.submit_many(probes.wait, [[item] for item in items])
    for item in items:
        await world.marked(f"{item} runs")
    return ids


async def refuses_orders(world: World) -> list[UUID]:
    """Place orders until one is refused; returns the jobs of the others."""
    accepted = []
    while (answer := await world.client.post("/orders", json=ORDER)).status_code == 201:
        accepted.append(UUID(answer.json()["data"]["job_id"]))
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    return accepted


async def is_not_ready(world: World) -> None:
    async def down() -> bool:
        ready = await world.client.get("/health/ready")
        return ready.status_code == 503 and ready.json()["data"]["database"] == "down"

    await eventually(down)
    assert (await world.client.get("/health/live")).status_code == 200


async def is_well(world: World, ids: list[UUID], *items: str) -> None:
    """All these jobs succeed, and no try of them is counted but the last one."""
    await eventually(world.is_ready)
    await world.row_is(await world.place_order(), "succeeded")
    await world.all_are("succeeded", ids)
    for row in [await world.row(job_id) for job_id in ids]:
        assert (row.crashes, row.max_attempts - row.attempts) == (0, probes.wait.tries - 1)
    assert [await world.effects(item) for item in items] == [1] * len(items)
    assert [name for name in world.processes if "Traceback" in world.log(name)] == []


async def test_a_table_that_cannot_grow_is_noticed_and_costs_no_job(
    fillable: tuple[World, Database, SmallDisk],
) -> None:
    world, database, disk = fillable
    ids = await begin(world, "over it", "into it")
    with backup(database):
        disk.fill()
        ids += await refuses_orders(world)
        world.let_end("into it")
        await is_not_ready(world)
    disk.free()
    world.let_end("over it")
    await is_well(world, ids, "over it", "into it")


async def test_a_server_that_its_full_disk_has_ended_costs_no_job(
    fillable: tuple[World, Database, SmallDisk],
) -> None:
    world, database, disk = fillable
    ids = await begin(world, "over it", "into it")
    disk.fill()
    await asyncio.to_thread(fill_the_log, database)
    await is_not_ready(world)
    assert await refuses_orders(world) == []
    world.let_end("into it")
    database.stop()
    disk.free()
    await asyncio.to_thread(database.start)
    await world.engine.dispose()
    world.let_end("over it")
    await is_well(world, ids, "over it", "into it")
