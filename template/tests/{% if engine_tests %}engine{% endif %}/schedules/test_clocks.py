"""With three replicas each tick is one job, even if one of them is killed or frozen."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from statistics import median

import pytest
from sqlalchemy import func, select

from app.jobs.table import jobs
from tests.engine.api.schedule_calls import ECHO, call, create
from tests.engine.schedules.clocks import Clocks, latest
from tests.engine.schedules.probes import hold
from tests.service import eventually


async def test_three_that_start_on_an_empty_database_make_each_tick_one_job_though_slots_are_full(
    three: Clocks,
) -> None:
    first = (await three.every_tick(1))[0].at
    await ticks_come_while_slots_are_full(three, 15)
    await three.ticks_between(first, first + timedelta(seconds=29))
    await three.each_has_run_once()


async def ticks_come_while_slots_are_full(three: Clocks, seconds: int) -> None:
    """Fill all slots with jobs that also keep connections, and watch the ticks."""
    slots = 3 * len([name for name in three.processes if name.startswith(three.host())])
    running = select(func.count()).where(jobs.c.task == hold.name, jobs.c.status == "running")

    async def full() -> bool:
        async with three.engine.connect() as connection:
            return (await connection.execute(running)).scalar_one() == slots

    async def filled() -> bool:
        """Any host may take the waiting jobs, so submit more until no host has a free slot."""
        await three.submit_many(hold, [()] * 3)
        await asyncio.sleep(0.3)
        return await full()

    await eventually(filled)
    ticks = await three.every_tick(seconds)
    assert await full()
    (three.folder / "enough").touch()
    assert latest(ticks) < 5  # they don't wait for a free slot


async def test_when_the_last_to_fire_is_killed_the_next_tick_comes_all_the_same(
    three: Clocks,
) -> None:
    first = (await three.every_tick(1))[0].at
    late = []
    for _ in range(4):
        name = await three.fired_last()
        killed = datetime.now(UTC)
        three.kill(name)
        last = (await three.every_tick(1))[-1].at
        await three.restart(name)  # else it may be that none runs at the next round
        late.append(latest(await three.ticks_between(killed.replace(microsecond=0), last)))
    await three.ticks_between(first, last)
    assert median(late) < 2  # the machine may be busy
    assert max(late) < 5
    await three.each_has_run_once()


@pytest.mark.postgresql  # a frozen process keeps SQLite's only lock
async def test_one_that_is_frozen_silences_nobody(three: Clocks) -> None:
    first = (await three.every_tick(1))[0].at
    with three.frozen(await three.fired_last()):
        await three.every_tick(5)
    last = (await three.every_tick(2))[-1].at
    assert latest(await three.ticks_between(first, last)) < 5


@pytest.mark.postgresql
async def test_one_that_is_frozen_in_its_claim_silences_nobody_for_long(three: Clocks) -> None:
    first = (await three.every_tick(1))[0].at
    name = await three.froze()
    try:
        await three.every_tick(5)
    finally:
        os.kill(three.processes[name].pid, signal.SIGCONT)
    last = (await three.every_tick(2))[-1].at
    assert latest(await three.ticks_between(first, last)) < 5


async def test_ticks_that_are_less_than_5_s_late_are_never_left_out(three: Clocks) -> None:
    first = (await three.every_tick(1))[0].at
    with ExitStack() as frozen:
        for name in three.clocks(3):
            frozen.enter_context(three.frozen(name))
        await asyncio.sleep(3.5)
        stood = await three.ticks("every_second")
    last = (await three.every_tick(1))[0].at
    ticks = await three.ticks_between(first, last)
    assert len(ticks) - len([tick for tick in stood if tick in ticks]) > 2


async def test_what_an_operator_does_is_seen_by_every_replica_within_2_s(three: Clocks) -> None:
    made = await create(three, **ECHO | {"trigger": {"kind": "interval", "seconds": 1}})
    url, created = f"/{made['id']}", datetime.now(UTC)
    first = await eventually(lambda: three.ticks(made["id"]))
    assert first[0].submitted - created < timedelta(seconds=5)
    answer = await call(three, "PATCH", url, revision=1, paused=True)
    assert answer.status_code == 200
    seen = datetime.now(UTC) + timedelta(seconds=2)
    await three.every_tick(6)
    assert [tick for tick in await three.ticks(made["id"]) if tick.submitted > seen] == []
