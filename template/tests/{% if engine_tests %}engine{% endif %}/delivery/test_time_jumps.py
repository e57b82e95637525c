"""The clock of the database's machine is set an hour forward or back.

SQLite has no other clock than that of the processes, so it is theirs, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select

from app.core.database import IS_SQLITE
from app.jobs import Interval, Schedule
from app.jobs.schedules import definition_of
from app.jobs.table import db_time, jobs, schedules
from devtools.commands import CLOCK
from tests.engine.broker import Broker
from tests.engine.delivery.database import Database, world_on
from tests.engine.delivery.faked_time import FakedTime, faked_time
from tests.engine.delivery.probes import work
from tests.engine.delivery.world import World
from tests.service import START_LIMIT, eventually

HOUR = 3600
TICKS = func.count().filter(jobs.c.key.startswith("schedule:"))
# Seconds. The library makes processes slow.
SLOW_LEASE = "6"
# Seconds by which a jump may seem shorter. On SQLite the question for the time waits for writers.
SHORTER = 4 if IS_SQLITE else 0


@asynccontextmanager
async def world_in(
    time: FakedTime, backend: str, broker: Broker | None, folder: Path
) -> AsyncIterator[World]:
    if IS_SQLITE:
        world = World(folder / "world", backend, broker, LEASE=SLOW_LEASE, **time.env)
        await world.as_it_should_be()
        yield world
        await world.close()
    else:
        database = await asyncio.to_thread(Database, folder, time.env)
        async with world_on(database, backend, broker, folder) as world:
            yield world


@pytest.fixture
async def timed(
    backend: str, own_broker: Broker | None, tmp_path: Path
) -> AsyncIterator[tuple[World, FakedTime]]:
    """A world with two hosts, on a database whose clock can be set."""
    with faked_time() as time:
        async with world_in(time, backend, own_broker, tmp_path) as world:
            world.start_hosts(2)
            await asyncio.gather(*(knows_the_time(world, world.host(n)) for n in (1, 2)))
            await eventually(world.is_ready, START_LIMIT)
            assert await clock_of(world) == "ok"
            yield world, time


async def knows_the_time(world: World, host: str) -> None:
    """Wait until the host has asked for the database's time. Otherwise it notices no jump."""

    async def watches() -> bool:
        return (world.heartbeats(host) / "relay").exists()

    await eventually(watches, START_LIMIT)


async def clock_of(world: World) -> str:
    """What `ready` says of the clock. The answer is 200 even after a jump."""
    ready = await world.client.get("/health/ready")
    assert ready.status_code == 200
    return str(ready.json()["data"]["clock"])


async def begin(world: World, items: list[str], seconds: float) -> None:
    await world.submit_many(work, [[item, seconds] for item in items])
    await world.marked(f"{items[0]} runs")


async def all_ran(world: World, items: list[str], limit: float = 60) -> None:
    """Wait until these jobs have succeeded. Each must have had one effect."""
    ours = jobs.c.task == work.name, jobs.c.key.is_(None)  # ticks have a key
    done = select(func.count()).where(*ours, jobs.c.status == "succeeded")

    async def reached() -> bool:
        async with world.engine.connect() as connection:
            return (await connection.execute(done)).scalar_one() >= len(items)

    await eventually(reached, limit)
    assert [await world.effects(item) for item in items] == [1] * len(items)


async def ticks(world: World) -> int:
    async with world.engine.connect() as connection:
        return (await connection.execute(select(TICKS))).scalar_one()


async def ticks_go_on(world: World) -> None:
    before = await ticks(world)

    async def more() -> bool:
        return await ticks(world) >= before + 3

    await eventually(more)


def jumped(word: str) -> list[str]:
    """What `ready` may say after a jump of an hour."""
    return [f"jumped {word} {HOUR - less} s" for less in range(SHORTER + 1)]


def logged(world: World) -> list[str]:
    """The processes that logged a jump of the clock."""
    return [name for name in world.processes if "clock.jumped" in world.log(name)]


async def test_a_jump_forward_takes_no_job_from_a_host_that_lives(
    timed: tuple[World, FakedTime],
) -> None:
    world, time = timed
    items, lease = ["forward 1", "forward 2"], float(world.env["LEASE"])
    await begin(world, items, 3 * lease)
    await world.marked("forward 2 runs")
    time.shift(HOUR)
    await all_ran(world, items)
    tried = select(func.max(jobs.c.attempts), func.max(jobs.c.crashes))
    async with world.engine.connect() as connection:
        assert tuple((await connection.execute(tried)).one()) == (1, 0)
    assert await clock_of(world) in jumped("forward")
    assert {"api", world.host(), world.host(2)} == set(logged(world))
    await begin(world, ["killed"], 1)
    world.kill(world.host(), world.host(2))
    world.start_hosts()
    await all_ran(world, [*items, "killed"])


async def test_after_a_jump_back_jobs_and_schedules_go_on(timed: tuple[World, FakedTime]) -> None:
    world, time = timed
    each = Schedule("each second", Interval(seconds=1), work, ("tick", 0))
    values = {"definition": definition_of(each), "task": each.task.name}
    async with world.engine.begin() as connection:
        await connection.execute(
            insert(schedules).values(id=each.id, next_tick=db_time(0), **values)
        )
    if CLOCK not in world.processes:
        world.start(CLOCK)
    await ticks_go_on(world)
    items = [f"back {number}" for number in range(24)]  # more than the hosts have slots
    await begin(world, items, 1)
    world.kill(world.host(2))  # while it runs jobs
    time.shift(-HOUR)
    await ticks_go_on(world)
    await all_ran(world, items)
    assert await clock_of(world) in jumped("back")
    assert world.host() in logged(world)
    await world.ran_once(f"schedule:{each.id}:", "tick")
