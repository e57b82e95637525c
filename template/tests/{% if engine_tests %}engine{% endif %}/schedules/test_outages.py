"""The database is away for a while, or a process is blocked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from devtools.commands import CLOCK
from tests.engine.delivery.database import Database
from tests.engine.schedules.clocks import EVERY_SECOND, Clocks, Tick
from tests.engine.schedules.probes import block
from tests.service import eventually

SECOND = timedelta(seconds=1)
IMPATIENT = EVERY_SECOND.replace("every_second", "impatient").removesuffix(")")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "database")
    yield made
    made.end()


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[Clocks]:
    world = Clocks(tmp_path / "world", DATABASE_URL=database.url)
    world.declare(EVERY_SECOND, f"{IMPATIENT}, misfire_grace=timedelta(seconds=30))")
    await world.migrate()
    await world.start_clocks(3)
    yield world
    await world.close()


@pytest.mark.postgresql
@pytest.mark.parametrize("seconds", [5, pytest.param(75, marks=pytest.mark.slow)])
async def test_schedules_go_on_by_themselves_when_the_database_is_back(
    world: Clocks, database: Database, seconds: int
) -> None:
    await world.every_tick(1)
    await asyncio.to_thread(database.stop)
    ready = await world.client.get("/health/ready")
    assert (ready.status_code, ready.json()["data"]["database"]) == (503, "down")
    await asyncio.sleep(seconds)
    assert (await world.client.get("/health/live")).status_code == 200
    await asyncio.to_thread(database.start)
    back = datetime.now(UTC)
    await world.engine.dispose()
    await world.every_tick(2)
    ticks = await world.ticks("every_second")
    first = next(tick for tick in ticks if tick.submitted > back - SECOND)
    assert first.submitted - back < 5 * SECOND
    assert_at_most_one_gap(ticks)
    await eventually(world.is_ready)
    missed = (await world.schedule("impatient"))["missed_since"]
    assert bool(missed) is (seconds > 30)
    assert world.ended == []


@pytest.mark.slow
async def test_a_clock_whose_process_is_blocked_goes_on_by_itself(tmp_path: Path) -> None:
    world = Clocks(tmp_path).declare(EVERY_SECOND)
    await world.migrate()
    await world.start_clocks(1)
    await world.every_tick(2)
    await world.row_is(await world.submit(block, 40), "running")
    blocked = datetime.now(UTC)

    async def goes_on() -> bool:
        last = (await world.ticks("every_second"))[-1]
        return last.at - blocked > 42 * SECOND

    await eventually(goes_on, 60)
    gap = assert_at_most_one_gap(await world.ticks("every_second"))
    assert gap > 30 * SECOND if world.host() == CLOCK else gap == SECOND
    assert world.ended == []
    await world.close()


def assert_at_most_one_gap(ticks: list[Tick]) -> timedelta:
    """Returns the longest time between two ticks."""
    gaps = [after.at - before.at for before, after in pairwise(ticks)]
    assert len([gap for gap in gaps if gap != SECOND]) <= 1
    return max(gaps)
