"""A host extends the leases of its jobs, and stops those that are lost or cancelled."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest

from app.config import get_settings
from app.jobs import Status, current_job, task
from app.jobs.host import Host, hosting
from app.jobs.table import jobs
from tests.engine import probes
from tests.engine.jobs.rows import (
    BACKEND,
    cancel,
    change,
    database_now,
    end,
    idle,
    row_of,
    status_is,
    statuses,
    submit,
)
from tests.service import eventually

pytestmark = pytest.mark.usefixtures("no_other_jobs")

LEASE = timedelta(seconds=get_settings().lease)
PENDING, RUNNING, SUCCEEDED = Status.PENDING, Status.RUNNING, Status.SUCCEEDED

may_end = asyncio.Event()


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_settings(), "stop_grace", 0)


async def test_a_long_job_keeps_its_lease(host: Host) -> None:
    job_id = await submit(probes.work, 30)

    async def extended() -> bool:
        row = await row_of(job_id)
        return bool(row.wake_at and row.started_at and row.wake_at > row.started_at + LEASE)

    await eventually(extended)
    assert await statuses(job_id) == [RUNNING]
    await end(host, job_id)


async def test_a_host_that_cannot_extend_its_leases_takes_no_jobs() -> None:
    host, held = Host(BACKEND, 4), await submit(probes.work, 30)
    await host._look()
    host._extended -= get_settings().lease
    plain, alone = await submit(probes.echo, "a"), await submit(probes.alone, 0)
    await host._look()
    assert await statuses(held, plain, alone) == [RUNNING, PENDING, PENDING]
    await host._extend()
    await host._look()
    await end(host, held)
    assert await statuses(plain, alone) == [SUCCEEDED, SUCCEEDED]


async def test_a_host_without_jobs_may_take_some() -> None:
    host, job_id = Host(BACKEND, 1), await submit(probes.echo, "a")
    host._extended -= 10 * get_settings().lease
    await host._look()
    await idle(host)
    assert await statuses(job_id) == [SUCCEEDED]


async def test_a_lost_job_is_stopped() -> None:
    """Another host has claimed the job, so this one must not change its row."""
    host, job_id = Host(BACKEND, 1), await submit(probes.work, 30)
    await host._look()
    await change(job_id, attempts=jobs.c.attempts + 1)
    await host._extend()
    await idle(host)
    row = await row_of(job_id)
    assert (row.status, row.attempts, row.max_attempts) == (RUNNING, 2, 3)


@task(name="held.deaf", timeout=timedelta(seconds=1))
async def deaf() -> str:
    """Its first try takes no notice of the end of its time limit."""
    while current_job().attempt == 1 and not may_end.is_set():
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.1)
    return "ended"


async def test_a_job_whose_task_ignores_its_time_limit_loses_its_lease(host: Host) -> None:
    job_id = await submit(deaf)
    host.ring()
    row = await status_is(job_id, SUCCEEDED)
    assert (row.result, row.attempts, row.crashes) == ("ended", 2, 1)
    may_end.set()
    await idle(host)


async def test_a_cancelled_job_is_stopped(host: Host) -> None:
    job_id = await submit(probes.work, 30)
    await status_is(job_id, RUNNING)
    await cancel(job_id)
    await idle(host)
    assert await statuses(job_id) == [Status.CANCELLED]


@pytest.mark.usefixtures("no_grace")
async def test_a_stop_hands_jobs_back_uncounted() -> None:
    running = [await submit(probes.work, 30), await submit(probes.alone, 30)]
    async with hosting(BACKEND):
        for job_id in running:
            await status_is(job_id, RUNNING)
    for row in [await row_of(job_id) for job_id in running]:
        assert (row.status, row.attempts, row.error) == (PENDING, 1, None)
    assert (await row_of(running[0])).max_attempts == 4
    assert (await row_of(running[0])).run_at <= await database_now()


async def test_a_stop_lets_jobs_end_in_its_grace() -> None:
    job_id = await submit(probes.work, 3)
    async with hosting(BACKEND):
        await status_is(job_id, RUNNING)
    assert (await row_of(job_id)).result == "worked"


async def test_a_host_that_stops_takes_no_jobs() -> None:
    host = Host(BACKEND, 4)
    host.stop_looking()
    waiting = [await submit(probes.echo, "a"), await submit(probes.alone, 0)]
    await host._look()
    await host.drain()
    assert await statuses(*waiting) == [PENDING, PENDING]
