"""PostgreSQL restarts or is away, and hosts freeze while they hold its locks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from app.core.database import jobs_engine
from app.jobs.contract import registry
from app.jobs.host import Host
from devtools.processes import stop
from tests.engine import probes
from tests.engine.broker import Broker
from tests.engine.delivery import probes as delivered
from tests.engine.delivery.database import Database, taken_from_a_frozen_host, world_on
from tests.engine.delivery.world import World
from tests.service import API_ENDED

AWAY = 6  # seconds
LONGEST = 6  # seconds, the timeout of tasks in `hasty`

pytestmark = pytest.mark.postgresql


@pytest.fixture
async def restarted(
    backend: str, own_broker: Broker | None, tmp_path: Path
) -> AsyncIterator[tuple[World, Database]]:
    database = await asyncio.to_thread(Database, tmp_path)
    async with world_on(database, backend, own_broker, tmp_path) as world:
        yield world, database


@pytest.fixture
async def hasty(backend: str, own_broker: Broker | None, tmp_path: Path) -> AsyncIterator[World]:
    """A world whose tasks have short timeouts."""
    world = World(tmp_path, backend, own_broker)
    world.shorten_timeouts(LONGEST)
    await world.as_it_should_be()
    yield world
    await world.close()


async def test_a_restart_of_the_database_loses_no_job(
    restarted: tuple[World, Database],
) -> None:
    world, database = restarted
    lease = float(world.env["LEASE"])
    long = await world.submit(delivered.wait, "over it")
    short = await world.submit(delivered.wait, "into it")
    for item in ("over it", "into it"):
        await world.marked(f"{item} runs")
    database.stop()
    world.let_end("into it")
    assert (await world.client.get("/health/live")).status_code == 200
    assert (await world.client.get("/health/ready")).json()["data"]["database"] == "down"
    await asyncio.sleep(lease)
    await asyncio.to_thread(database.start)
    await world.engine.dispose()
    world.let_end("over it")
    row = await world.row_is(long, "succeeded")
    assert (row.attempts, await world.effects("over it")) == (1, 1)
    row = await world.row_is(short, "succeeded")
    assert (row.attempts, await world.effects("into it")) == (2, 1)
    await world.row_is(await world.place_order(), "succeeded")
    assert (await world.client.get("/health/ready")).status_code == 200


async def test_a_host_writes_a_line_a_second_at_most_while_the_database_is_away(
    restarted: tuple[World, Database],
) -> None:
    """The number of its jobs and messages doesn't matter."""
    world, database = restarted
    ids = await world.submit_many(delivered.work, [[f"waits {number}", 1] for number in range(100)])
    await world.marked("waits 0 runs")
    logged, begun = len(world.log(world.host())), time.monotonic()
    database.stop()
    await asyncio.sleep(AWAY)
    lines = world.log(world.host())[logged:].splitlines()
    told = [line for line in lines if "[warning" in line or "[error" in line]
    assert 0 < len(told) <= time.monotonic() - begun + 1
    assert [line for line in lines if "Traceback" in line] == []
    await asyncio.to_thread(database.start)
    await world.engine.dispose()
    await world.all_are("succeeded", ids, limit=90)


@pytest.mark.parametrize("is_there", [True, False], ids=["silent", "away"])
async def test_a_host_ends_though_the_database_does_not_answer(
    restarted: tuple[World, Database], is_there: bool
) -> None:
    """Its jobs can't be handed back. Their leases end, and another host runs them."""
    world, database = restarted
    jobs = {
        "outcome": await world.submit(delivered.wait, "outcome"),
        "sync": await world.submit(delivered.wait_sync, "sync"),
        "stubborn": await world.submit(delivered.stubborn, "stubborn"),
    }
    for item in jobs:
        await world.marked(f"{item} runs")
    with unanswering(database, is_there):
        world.let_end("outcome")
        ended = asyncio.to_thread(stop, world.processes.pop(world.host()), grace=60)
        assert await ended in (0, API_ENDED)
    await world.engine.dispose()
    world.let_end("sync", "stubborn")
    world.start_hosts()
    for item, job_id in jobs.items():
        row = await world.row_is(job_id, "succeeded")
        assert (row.attempts, row.max_attempts) == (2, 6)  # the first try isn't counted
        assert await world.effects(item) == int(item != "stubborn")


@contextmanager
def unanswering(database: Database, is_there: bool) -> Iterator[None]:
    if is_there:
        with database.frozen():
            yield
    else:
        database.stop()
        yield
        database.start()


async def test_a_host_that_is_frozen_after_a_write_blocks_nobody_for_longer_than_a_timeout(
    hasty: World,
) -> None:
    row = await taken_from_a_frozen_host(hasty, "held", 3 * LONGEST)
    await hasty.row_is(await hasty.submit(probes.work, 1.0), "succeeded")
    assert await hasty.row(row.id) == row
    assert (row.attempts, await hasty.effects("held")) == (2, 1)


async def test_the_bound_is_the_longest_timeout_of_a_task(host: Host) -> None:
    longest = max(task.timeout for task in registry().values()).total_seconds()
    async with jobs_engine.connect() as connection:
        shown = text("SELECT setting::int FROM pg_settings WHERE name = :name")
        name = {"name": "idle_in_transaction_session_timeout"}
        assert (await connection.execute(shown, name)).scalar_one() == longest * 1000
