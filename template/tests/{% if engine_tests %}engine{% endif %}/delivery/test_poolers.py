"""PostgreSQL by PgBouncer, where a client keeps a connection for one transaction only."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import cycle
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.core.database import async_url
from app.core.drivers import give_up
from app.jobs import Interval, Schedule
from app.jobs.schedules import definition_of
from app.jobs.table import db_time, jobs, schedules
from devtools.commands import CLOCK
from devtools.processes import spawn, stop
from tests.engine import probes
from tests.engine.broker import Broker
from tests.engine.delivery import probes as delivered
from tests.engine.delivery.database import taken_from_a_frozen_host
from tests.engine.delivery.pooler import CONNECTIONS, pooling
from tests.engine.delivery.world import World
from tests.engine.schedules.clocks import empty_database
from tests.service import ROOT, START_LIMIT, eventually

LONGEST = 6  # seconds, the timeout of tasks

pytestmark = pytest.mark.postgresql

# Settings that the pooler itself keeps for each client.
KEPT = (
    "'client_encoding', 'application_name', 'DateStyle', 'TimeZone', 'standard_conforming_strings'"
)
LEFT = text(
    f"""
    SELECT name, setting FROM pg_settings WHERE source = 'session' AND name NOT IN ({KEPT})
    UNION ALL SELECT 'lock', objid::text FROM pg_locks WHERE locktype = 'advisory'
    """
)
WAIT = text("SELECT count(*) FROM pg_locks WHERE relation = 'jobs'::regclass AND NOT granted")


@pytest.fixture(params=["prepares", "never prepares"])
async def pooled(
    request: pytest.FixtureRequest, backend: str, own_broker: Broker | None, tmp_path: Path
) -> AsyncIterator[World]:
    direct, prepares = empty_database(tmp_path), request.param == "prepares"
    with pooling(direct, tmp_path / "pgbouncer.log", 200 if prepares else 0) as url:
        env = {"DATABASE_URL": url, "DATABASE_PREPARES": str(prepares)}
        await run("app.migrate", **env)
        world = World(tmp_path / "world", backend, own_broker, **env)
        world.engine = create_async_engine(async_url(direct))
        world.shorten_timeouts(LONGEST)
        await world.as_it_should_be()
        yield world
        await world.close()


async def run(*arguments: str, **env: str) -> None:
    """Run a module to its end."""
    command = [sys.executable, "-m", *arguments]
    whole = {**os.environ, **env}
    await asyncio.to_thread(subprocess.run, command, check=True, cwd=ROOT, env=whole)


async def left_behind(url: str) -> set[Any]:
    """Settings and locks that clients have left on the pooler's connections."""
    engine = create_async_engine(async_url(url), pool_size=CONNECTIONS)
    held: list[AsyncConnection] = []
    pids: set[int] = set()
    found: set[Any] = set()
    for _ in range(CONNECTIONS):
        held.append(await engine.connect())
        pids.add((await held[-1].execute(select(func.pg_backend_pid()))).scalar_one())
        found.update((await held[-1].execute(LEFT)).all())
    assert len(pids) == CONNECTIONS
    for connection in held:
        await connection.close()
    await engine.dispose()
    return found


async def held_up(url: str, engine: AsyncEngine) -> subprocess.Popen[bytes]:
    """A migration that has waited for the table `jobs` once, and sleeps now."""

    async def waiting(count: int) -> bool:
        async with engine.connect() as connection:
            return bool((await connection.execute(WAIT)).scalar_one() == count)

    process = spawn([sys.executable, "-m", "app.migrate"], cwd=ROOT, env={"DATABASE_URL": url})
    await eventually(lambda: waiting(1))
    await eventually(lambda: waiting(0))
    return process


async def add_schedule(world: World) -> None:
    each = Schedule("each second", Interval(seconds=1), probes.echo, ("tick",))
    values = {"definition": definition_of(each), "task": each.task.name}
    async with world.engine.begin() as connection:
        await connection.execute(
            insert(schedules).values(id=each.id, next_tick=db_time(0), **values)
        )


async def ticked(world: World) -> bool:
    done = select(func.count()).where(jobs.c.key.is_not(None), jobs.c.status == "succeeded")
    async with world.engine.connect() as connection:
        return (await connection.execute(done)).scalar_one() >= 3


async def test_a_service_runs_by_a_pooler_and_leaves_no_setting_behind(pooled: World) -> None:
    await add_schedule(pooled)
    pooled.start_hosts(2)
    if CLOCK not in pooled.processes:
        pooled.start(CLOCK)
    ids = [await pooled.place_order() for _ in range(20)]
    items = [f"pooled {number}" for number in range(40)]
    tasks = cycle([delivered.work, delivered.work_sync, delivered.write_first])
    ids += [await pooled.submit(next(tasks), item, 0.1) for item in items]
    ids += await pooled.submit_many(delivered.alone, [["alone"]] * 5)
    await pooled.all_are("succeeded", ids, limit=60)
    assert [await pooled.effects(item) for item in [*items, "alone"]] == [1] * len(items) + [5]
    await eventually(lambda: ticked(pooled))
    assert (await pooled.client.get("/health/ready")).status_code == 200
    pooled.kill_all()
    assert await left_behind(pooled.env["DATABASE_URL"]) == set()


async def test_a_host_that_is_frozen_by_a_pooler_blocks_nobody_for_long(pooled: World) -> None:
    """The bound is set in the transaction that needs it, on whichever connection that runs."""
    await pooled.submit_many(probes.work, [[0.1]] * 10)  # so that all connections have been used
    row = await taken_from_a_frozen_host(pooled, "held", 3 * LONGEST)
    assert (row.attempts, await pooled.effects("held")) == (2, 1)


@pytest.mark.parametrize("before", ["jobs_0002", "jobs_0003"])
async def test_a_migration_that_is_killed_leaves_no_setting_behind(
    before: str, tmp_path: Path
) -> None:
    """It waits for a lock for a second at a time, and is killed between two such waits."""
    direct = empty_database(tmp_path)
    await run("alembic", "upgrade", before, DATABASE_URL=direct)
    engine = create_async_engine(async_url(direct))
    with pooling(direct, tmp_path / "pgbouncer.log", 200) as url:
        async with engine.begin() as reader:
            await reader.execute(select(jobs.c.id))
            stop(await held_up(url, engine))
            assert await left_behind(url) == set()
            patient = await held_up(url, engine)
        assert await asyncio.to_thread(patient.wait, START_LIMIT) == 0
        assert await left_behind(url) == set()
    await engine.dispose()


async def test_a_statement_that_is_given_up_ends_behind_the_pooler_too(tmp_path: Path) -> None:
    direct, sleep = empty_database(tmp_path), "SELECT pg_sleep(3600)"
    running = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
    engine = create_async_engine(async_url(direct), isolation_level="AUTOCOMMIT")

    async def runs() -> bool:
        async with engine.connect() as watching:
            return bool(await watching.scalar(running))

    async def ended() -> bool:
        return not await runs()

    with pooling(direct, tmp_path / "pgbouncer.log", 0) as url:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as client:
            waits = asyncio.create_task(client.execute(sleep))
            await eventually(runs)
            give_up(client)
            with pytest.raises(psycopg.OperationalError):
                await waits
        await eventually(ended)
    await engine.dispose()
