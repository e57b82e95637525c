"""Many processes submit jobs to three hosts, of which one is killed again and again."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise

import pytest
from sqlalchemy import Connection, Engine, create_engine, delete, func, select

from app.core.database import IS_SQLITE, sync_url
from app.jobs.table import jobs
from app.models import Order
from tests.engine.delivery.world import World
from tests.service import eventually

SUBMITTERS = 8
FEW = 2_000 if IS_SQLITE else 4_000
MANY = 10_000
KILL_EVERY = 5  # seconds, about
KILLS = 50  # at most: on a slow machine hosts would else start all the time
STALLED = 60  # seconds in which no further job succeeds

SUBMIT = """
import asyncio, sys
from app.core.database import AsyncSessionLocal
from app.jobs import Jobs
from app.tasks.delivered_probes import work

async def main(first, last):
    for number in range(first, last):
        async with AsyncSessionLocal() as session:
            await Jobs(session).submit(work, f"storm {number}", 0)
            await session.commit()

asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
"""


def states(connection: Connection) -> dict[str, int]:
    """The jobs by status, without those of schedules, which may tick during the test."""
    storms = select(jobs.c.status, func.count()).where(jobs.c.key.is_(None))
    counted = storms.group_by(jobs.c.status)
    return {row.status: row[1] for row in connection.execute(counted)}


def forget_earlier_storms(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(delete(jobs))
        connection.execute(delete(Order))


def submitters(world: World, count: int) -> list[subprocess.Popen[bytes]]:
    bounds = [count * number // SUBMITTERS for number in range(SUBMITTERS + 1)]
    return [
        subprocess.Popen(
            [sys.executable, "-c", SUBMIT, str(first), str(last)],
            cwd=world.folder,
            env=world.whole_env,
        )
        for first, last in pairwise(bounds)
    ]


async def kill_again_and_again(world: World, between: int, found: dict[str, int]) -> None:
    async def more_than(done: int) -> bool:
        return found.get("succeeded", 0) >= done + between

    while True:
        done = found.get("succeeded", 0)
        await asyncio.sleep(random.uniform(0.5, 1.5) * KILL_EVERY)
        await eventually(partial(more_than, done), limit=10 * STALLED)
        world.kill(world.host(random.randint(1, 3)))
        await asyncio.to_thread(world.start_hosts, 3)


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(FEW, marks=pytest.mark.slow, id="few"),
        pytest.param(MANY, marks=pytest.mark.postgresql, id="many"),
    ],
)
async def test_a_storm_loses_nothing_and_does_nothing_twice(world: World, count: int) -> None:
    world.kill_all()
    world.env["MAX_CRASHES"] = "1000"  # the test kills the hosts, not the jobs
    engine = create_engine(sync_url(world.env["DATABASE_URL"]))
    forget_earlier_storms(engine)
    world.start("api").start_hosts(3)
    processes = submitters(world, count)
    found: dict[str, int] = {}
    killing = asyncio.create_task(kill_again_and_again(world, count // KILLS, found))
    begun = time.monotonic()

    async def more_than(done: int) -> int | None:
        await asyncio.sleep(0.5)
        with engine.connect() as connection:
            found.clear()
            found.update(states(connection))
        print(f"after {time.monotonic() - begun:.0f} s: {found}")  # shown if the test fails
        assert "dead" not in found
        assert not killing.done()
        assert not any(process.poll() for process in processes)
        return succeeded if (succeeded := found.get("succeeded", 0)) > done else None

    try:
        done = 0
        while done < count:
            done = await eventually(partial(more_than, done), STALLED)
    finally:
        killing.cancel()
        codes = [process.wait() for process in processes]
    assert codes == [0] * SUBMITTERS
    with engine.connect() as connection:
        assert states(connection) == {"succeeded": count}
        distinct = func.count(Order.item.distinct())
        effects = connection.execute(select(func.count(), distinct).select_from(Order)).one()
    engine.dispose()
    assert tuple(effects) == (count, count)
