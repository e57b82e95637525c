"""Two releases run at once, each with its own schedules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from app.jobs.table import jobs
from devtools.commands import CLOCK
from tests.engine.api.schedule_calls import call, create
from tests.engine.schedules.clocks import EVERY_SECOND, Clocks
from tests.service import eventually

SECOND = {"kind": "interval", "seconds": 1}


def echo(schedule_id: str, text: str) -> str:
    return f'Schedule("{schedule_id}", Interval(seconds=1), echo, ("{text}",))'


@pytest.fixture
async def old(tmp_path: Path) -> AsyncIterator[Clocks]:
    world = Clocks(tmp_path / "old")
    changed, paused, dropped = (echo(name, "old") for name in ("changed", "paused", "dropped"))
    world.declare(EVERY_SECOND, changed, paused, dropped)
    yield world
    await world.close()


@pytest.fixture
async def new(old: Clocks, tmp_path: Path) -> AsyncIterator[Clocks]:
    """A release with a task that the old one doesn't know. It lacks a task that the old one has."""
    world = Clocks(tmp_path / "new", DATABASE_URL=old.env["DATABASE_URL"])
    world.edit("tasks/probes.py", "probes.later", "probes.added")
    changed, paused = (echo(name, "new") for name in ("changed", "paused"))
    added = 'Schedule("added", Interval(seconds=1), later)'
    world.declare(EVERY_SECOND, changed, paused, added)
    yield world
    await world.close()


async def release(world: Clocks) -> None:
    await world.migrate()
    await world.start_clocks(1)


async def test_a_rolling_deploy_reverts_nothing_and_loses_no_tick(old: Clocks, new: Clocks) -> None:
    await release(old)
    await create(old, id="orphan", task="probes.later", trigger=SECOND, args={})
    assert (await call(old, "PATCH", "/paused", revision=1, paused=True)).status_code == 200
    first = (await old.every_tick(1))[0].at
    await release(new)
    old.kill(CLOCK)
    await old.start_clocks(1)

    async def ticked_twice() -> bool:
        return len(await new.ticks("added")) > 1

    await eventually(ticked_twice)
    await new.ticks_between(first, (await new.every_tick(1))[-1].at)
    listed = {each["id"]: each for each in (await call(new, "GET", "")).json()["data"]}
    assert "dropped" not in listed
    for schedule_id in ("changed", "paused"):
        assert listed[schedule_id]["args"] == {"text": "new"}
        assert listed[schedule_id]["paused"] is (schedule_id == "paused")
    assert (listed["orphan"]["problem"], listed["added"]["problem"]) == ("unknown task", None)
    assert (await old.schedule("added"))["problem"] == "unknown task"
    assert (old.ended, new.ended) == ([], [])
    await only_the_old_release_runs_what_the_new_one_lacks(old, new)


async def only_the_old_release_runs_what_the_new_one_lacks(old: Clocks, new: Clocks) -> None:
    assert await old.ticks("orphan")
    old.kill_all()
    stopped = (await new.every_tick(1))[0].at
    assert [tick for tick in await new.ticks("orphan") if tick.at >= stopped] == []
    last = (await new.ticks("changed"))[-1]
    key = f"schedule:changed:{last.at:%Y-%m-%dT%H:%M:%SZ}"

    async def said_new() -> bool:
        of_last = select(jobs.c.result).where(jobs.c.key == key)
        async with new.engine.connect() as connection:
            return (await connection.execute(of_last)).all() == [("new",)]

    await eventually(said_new)
