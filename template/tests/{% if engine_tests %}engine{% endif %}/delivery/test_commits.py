"""A job exists if and only if its transaction was committed. Then it runs, whatever is killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import Jobs
from tests.engine import probes
from tests.engine.delivery import probes as delivered
from tests.engine.delivery.world import World

SCRIPT = """
import asyncio
from app.core.database import AsyncSessionLocal
from app.jobs import Jobs
from app.tasks.delivered_probes import work

async def main():
    async with AsyncSessionLocal() as session:
        print((await Jobs(session).submit(work, "by a script", 0)).id)
        await session.commit()

asyncio.run(main())
"""


async def test_a_job_runs_though_the_api_is_killed_right_after_the_commit(world: World) -> None:
    world.kill(*world.processes)  # no host is there to run it
    world.start("api")
    if world.in_api:
        jobs = [await world.place_order() for _ in range(20)]
        world.kill("api")
    else:
        with world.broker.frozen():  # so that the API can't send a message
            jobs = [await world.place_order()]
            world.kill("api")
    world.start_hosts()
    await world.all_are("succeeded", jobs)


async def test_what_a_script_submits_runs(world: World) -> None:
    command = [sys.executable, "-c", SCRIPT]
    printed = await asyncio.to_thread(
        subprocess.check_output, command, cwd=world.folder, env=world.whole_env, text=True
    )
    await world.row_is(UUID(printed.strip()), "succeeded")
    assert await world.effects("by a script") == 1


async def test_what_was_rolled_back_never_runs(healthy: World) -> None:
    async with AsyncSession(healthy.engine) as session:
        await Jobs(session).submit(delivered.work, "rolled back", 0)
        await session.rollback()
        kept = await Jobs(session).submit(delivered.work, "kept", 0)
        async with session.begin_nested() as savepoint:
            await Jobs(session).submit(delivered.work, "rolled back", 0)
            await savepoint.rollback()
        await session.commit()
    await healthy.row_is(kept.id, "succeeded")
    await healthy.row_is(await healthy.submit(probes.echo, "after"), "succeeded")
    counted = [await healthy.effects(item) for item in ("kept", "rolled back")]
    assert counted == [1, 0]
