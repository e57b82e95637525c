"""Which jobs a host takes, and when it looks for them.

Most tests call the host's steps themselves, so that nothing happens in between.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from app.config import get_settings
from app.jobs import Status, task
from app.jobs.contract import Task
from app.jobs.host import Host, hosting
from app.jobs.relay import InProcess
from app.jobs.table import db_time
from tests.engine import probes
from tests.engine.jobs.rows import (
    BACKEND,
    change,
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
SUSPECT = get_settings().max_crashes - 1
PENDING, RUNNING, SUCCEEDED = Status.PENDING, Status.RUNNING, Status.SUCCEEDED


@pytest.fixture
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts don't look after RELAY_INTERVAL."""
    monkeypatch.setattr(get_settings(), "relay_interval", 3600)


async def test_a_job_runs_once_however_often_it_is_rung_for(host: Host) -> None:
    job_id = await submit(probes.echo, "a")
    async with hosting(BACKEND) as other:
        for _ in range(20):
            await InProcess(host).ring([])
            await InProcess(other).ring([])
            await asyncio.sleep(0)
        await status_is(job_id, SUCCEEDED)
        await asyncio.gather(host._look(), other._look())
    assert (await row_of(job_id)).attempts == 1


async def test_it_takes_only_what_it_can_run_at_once() -> None:
    host = Host(BACKEND, 2)
    waiting = [await submit(probes.work, 30, run_at=db_time(n - 10)) for n in range(3)]
    await host._look()
    await host._look()
    assert (await statuses(*waiting), host.free) == ([RUNNING, RUNNING, PENDING], 0)
    assert not host.ring()
    await end(host, *waiting[:2])
    assert host.ring()
    await host._look()
    assert await statuses(waiting[2]) == [RUNNING]
    await end(host, waiting[2])


async def test_the_jobs_of_its_queues_are_all_that_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    carried = {"default": BACKEND, "workflows": "another"}
    monkeypatch.setattr(get_settings(), "queues", carried)
    mine, others = [await submit(probes.echo, "a", queue=each) for each in carried]
    host = Host(BACKEND, 2)
    await host._look()
    await idle(host)
    assert await statuses(mine, others) == [SUCCEEDED, PENDING]


async def test_a_job_that_is_not_due_is_not_run() -> None:
    host, job_id = Host(BACKEND, 1), await submit(probes.echo, "a", run_at=db_time(60))
    await host._look()
    await idle(host)
    assert await statuses(job_id) == [PENDING]


async def test_an_unknown_task_is_left_for_others() -> None:
    host = Host(BACKEND, 4)
    unknown = [
        await submit(probes.echo, "a", task="of.another_release", crashes=crashes)
        for crashes in (0, 1, SUSPECT)
    ]
    await host._look()
    await idle(host)
    for row in [await row_of(job_id) for job_id in unknown]:
        assert (row.status, row.attempts) == (PENDING, 0)


@pytest.mark.usefixtures("no_looks")
@pytest.mark.parametrize("crashes", [0, 1])
async def test_a_slot_that_gets_free_is_used_at_once(crashes: int) -> None:
    """A host that was full looks again without a bell."""
    waiting = [await submit(probes.echo, "a", crashes=crashes) for _ in range(10)]
    async with hosting(BACKEND, slots=3):
        for job_id in waiting:
            await status_is(job_id, SUCCEEDED)


@pytest.mark.usefixtures("no_looks")
@pytest.mark.parametrize(("probe", "argument"), [(probes.echo, "a"), (probes.alone, 0)])
async def test_a_delayed_job_runs_when_it_is_due_though_nobody_rings(
    probe: Task[..., Any, Any], argument: Any
) -> None:
    job_id = await submit(probe, argument, run_at=db_time(0.5))
    async with hosting(BACKEND):
        row = await status_is(job_id, SUCCEEDED)
    assert row.started_at >= row.run_at


async def test_a_job_that_nobody_rang_for_is_found(host: Host) -> None:
    await status_is(await submit(probes.echo, "a"), SUCCEEDED)


async def test_others_are_told_when_more_jobs_may_wait_than_fit() -> None:
    told: list[bool] = []
    host = Host(BACKEND, 2)
    host.tell_others = lambda: told.append(True)
    first = await submit(probes.work, 30)
    await host._look()
    assert (host.free, told) == (1, [])
    second = await submit(probes.work, 30)
    await host._extend()  # else a slow host takes no more jobs
    await host._look()
    assert (host.free, told) == (0, [True])
    await end(host, first, second)


async def test_others_are_told_of_jobs_that_are_claimed_one_by_one() -> None:
    told: list[bool] = []
    host = Host(BACKEND, 1)
    host.tell_others = lambda: told.append(True)
    crashed = [await submit(probes.work, 30, crashes=1, run_at=db_time(n - 9)) for n in range(2)]
    await host._look()
    assert (await statuses(*crashed), told) == ([RUNNING, PENDING], [True])
    await end(host, crashed[0])


peak = now = 0
pair = asyncio.Barrier(2)


@task(name="host.counted", max_running=2)
async def counted() -> None:
    """It waits until a second one runs."""
    global peak, now
    now += 1
    await pair.wait()
    peak = max(peak, now)
    await asyncio.sleep(0.01)
    now -= 1


async def test_max_running_holds_over_several_hosts(host: Host) -> None:
    waiting = [await submit(counted) for _ in range(20)]
    async with hosting(BACKEND, slots=4):
        for job_id in waiting:
            await status_is(job_id, SUCCEEDED)
    assert (peak, now) == (2, 0)


async def test_a_task_at_its_limit_keeps_no_other_waiting() -> None:
    host, other = Host(BACKEND, 4), Host(BACKEND, 4)
    first, second = await submit(probes.alone, 30), await submit(probes.alone, 0)
    await host._look()
    plain = await submit(probes.echo, "a")
    await other._look()
    await idle(other)
    assert await statuses(first, second, plain) == [RUNNING, PENDING, SUCCEEDED]
    await end(host, first)

    async def taken() -> bool:
        await other._look()
        return await statuses(second) == [SUCCEEDED]

    await eventually(taken)


async def test_jobs_that_crashed_too_often_run_one_at_a_time() -> None:
    """One of them may kill its host, and must not make the others crash, too."""
    host = Host(BACKEND, 4)
    suspects = [await submit(probes.work, 30, crashes=SUSPECT) for _ in range(2)]
    crashed_once = await submit(probes.work, 30, crashes=SUSPECT - 1)
    fresh = await submit(probes.echo, "a")
    await host._look()
    await host._look()
    assert sorted(await statuses(*suspects)) == [PENDING, RUNNING]
    assert await statuses(crashed_once) == [RUNNING]
    await status_is(fresh, SUCCEEDED)
    first, second = sorted([await row_of(each) for each in suspects], key=lambda row: row.attempts)
    await end(host, second.id, crashed_once)
    await host._look()
    assert await statuses(first.id) == [RUNNING]
    await end(host, first.id)


async def test_a_host_outlives_its_table(session: AsyncSession, host: Host) -> None:
    """The table is missing, as it is before the first migration."""
    job_id = await submit(probes.echo, "a", run_at=db_time(3600))
    with capture_logs() as logs:

        async def failed() -> bool:
            return any(line["event"] == "host.look_failed" for line in logs)

        await session.execute(text("ALTER TABLE jobs RENAME TO away"))
        await session.commit()
        await eventually(failed)
        await session.execute(text("ALTER TABLE away RENAME TO jobs"))
        await session.commit()
    await change(job_id, run_at=db_time(0))
    await status_is(job_id, SUCCEEDED)
