"""What a dead host held is taken back, and what no host knows ends; each step is done by hand."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from app.config import get_settings
from app.jobs.contract import registry
from app.jobs.relay import in_background
from app.jobs.table import Status, clock, known_tasks
from app.jobs.watch import _Watch, watch
from tests import probes
from tests.jobs.rows import change, database_now, row_of, status_is, statuses, submit
from tests.service import eventually

pytestmark = pytest.mark.usefixtures("no_other_jobs")

GRACE = get_settings().unknown_task_grace
DEAD, PENDING, RUNNING = Status.DEAD, Status.PENDING, Status.RUNNING


async def lost(**values: Any) -> UUID:
    """A job whose worker said nothing for longer than its lease."""
    held: dict[str, Any] = {"status": RUNNING, "attempts": 1, "wake_at": clock(-1)}
    return await submit(probes.echo, "a", **(held | values))


async def know(session: AsyncSession, task: str, age: float) -> None:
    """As another host says; this process has no such task."""
    assert task not in registry()
    await session.execute(insert(known_tasks).values(name=task, seen_at=clock(-age)))
    await session.commit()


async def test_a_lost_job_is_taken_back_uncounted() -> None:
    job_id = await lost(error="RuntimeError: of the try before")
    await _Watch().step()
    row = await row_of(job_id)
    assert (row.status, row.attempts, row.max_attempts) == (PENDING, 1, 6)
    assert (row.crashes, row.finished_at) == (1, None)
    assert row.error == "RuntimeError: of the try before"
    assert row.run_at <= await database_now()


async def test_a_job_that_keeps_killing_its_workers_is_dead() -> None:
    job_id = await lost(attempts=3, crashes=get_settings().max_crashes - 1)
    with capture_logs() as logs:
        await _Watch().step()
    row = await row_of(job_id)
    assert (row.status, row.attempts, row.wake_at) == (DEAD, 3, None)
    assert row.error.startswith("WorkerLost")
    assert row.started_at is None or row.started_at <= row.finished_at
    assert [(line["event"], line["job_id"]) for line in logs] == [("job dead", str(job_id))]


async def test_a_running_job_in_its_lease_is_left_alone() -> None:
    job_id = await lost(wake_at=clock(60))
    before = await row_of(job_id)
    await _Watch().step()
    assert await row_of(job_id) == before


@pytest.mark.parametrize("status", [each for each in Status if each is not RUNNING])
async def test_only_what_runs_is_taken_back(status: Status) -> None:
    job_id = await lost(status=status)
    before = await row_of(job_id)
    await _Watch().step()
    assert await row_of(job_id) == before


async def test_several_at_once_take_a_job_back_once() -> None:
    ids = [await lost() for _ in range(30)]
    watches = [_Watch() for _ in range(5)]
    await asyncio.gather(*(each.step() for each in watches))
    await _Watch().step()  # nothing is left to the next: no one had to wait for another's lock
    assert [(await row_of(job_id)).crashes for job_id in ids] == [1] * 30


async def test_one_that_was_blocked_lets_leases_be_extended_first() -> None:
    """Nobody in its process could: those who hold the jobs will now."""
    job_id, blocked = await lost(), _Watch()
    blocked._looked -= 60
    await blocked.step()
    await blocked.step()
    assert await statuses(job_id) == [RUNNING]
    await change(job_id, wake_at=clock(60))
    other = await lost()

    async def taken_back() -> bool:
        await blocked.step()
        return await statuses(other) == [PENDING]

    await eventually(taken_back)
    assert await statuses(job_id) == [RUNNING]


async def test_a_task_that_no_host_knows_is_dead_after_a_grace() -> None:
    old = await submit(probes.echo, "a", task="gone.task", run_at=clock(-GRACE - 1))
    new = await submit(probes.echo, "a", task="gone.task", run_at=clock(-GRACE + 60))
    with capture_logs() as logs:
        await _Watch().step()
    row = await row_of(old)
    assert (row.status, row.attempts, row.wake_at) == (DEAD, 0, None)
    assert row.error.startswith("UnknownTask")
    assert row.run_at <= row.finished_at <= await database_now()
    assert await statuses(new) == [PENDING]
    assert [(line["event"], line["job_id"]) for line in logs] == [("job dead", str(old))]


async def test_a_task_that_another_host_knows_is_left_to_it(session: AsyncSession) -> None:
    """A rolling update, or a queue that is full: it waits, however long."""
    await know(session, "of.another_release", GRACE - 60)
    waits = await submit(probes.echo, "a", task="of.another_release", run_at=clock(-GRACE - 1))
    await _Watch().step()
    assert await statuses(waits) == [PENDING]


async def test_a_task_that_no_host_has_known_for_a_grace_is_dead(session: AsyncSession) -> None:
    await know(session, "of.a_release_before", GRACE + 60)
    gone = await submit(probes.echo, "a", task="of.a_release_before", run_at=clock(-GRACE - 1))
    await _Watch().step()
    assert await statuses(gone) == [DEAD]


async def test_each_kind_that_waits_is_looked_at(session: AsyncSession) -> None:
    """In every queue, however many of other kinds there are, and of what this process knows."""
    await know(session, "of.another_release", 0)
    old = clock(-GRACE - 1)
    names = ["a.gone", "of.another_release", "probes.echo", "z.gone"]
    kinds = [(queue, name) for queue in ("default", "orders", "workflows") for name in names]
    ids = {
        (queue, name, n): await submit(probes.echo, "a", queue=queue, task=name, run_at=old)
        for queue, name in kinds
        for n in range(3)
    }
    await _Watch().step()
    found = {kind: (await statuses(job_id))[0] for kind, job_id in ids.items()}
    assert found == {kind: DEAD if "gone" in kind[1] else PENDING for kind in ids}


async def test_a_job_that_is_due_later_outlives_its_task() -> None:
    """Its task may be there again by then: the grace begins when it is due."""
    later = await submit(probes.echo, "a", task="gone.task", run_at=clock(60))
    await _Watch().step()
    assert await statuses(later) == [PENDING]


async def test_a_host_vouches_for_its_tasks(session: AsyncSession) -> None:
    await session.execute(insert(known_tasks).values(name="probes.echo", seen_at=clock(-9999)))
    await session.commit()
    await _Watch().step()
    seen = select(known_tasks.c.name).where(known_tasks.c.seen_at > clock(-60))
    assert set(await session.scalars(seen)) == set(registry())


async def test_it_outlives_its_tables(session: AsyncSession) -> None:
    """As before the first migration, or while the database is away."""
    job_id = await lost()
    with capture_logs() as logs:

        async def failed() -> bool:
            return any(line["event"].startswith("watch failed") for line in logs)

        await session.execute(text("ALTER TABLE jobs RENAME TO away"))
        await session.commit()
        async with in_background(watch()):
            await eventually(failed)
            await session.execute(text("ALTER TABLE away RENAME TO jobs"))
            await session.commit()
            await status_is(job_id, PENDING)
