"""Jobs of a dead host are taken back, and jobs of unknown tasks end. Tests call each step."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from app.config import get_settings
from app.core.concurrency import in_background
from app.jobs import Status
from app.jobs.contract import registry
from app.jobs.processes import SILENT
from app.jobs.table import MAX_COUNT, db_time, known_tasks, processes
from app.jobs.watch import _Watch, new_watch, watch
from tests.engine import probes
from tests.engine.jobs.rows import change, database_now, row_of, status_is, statuses, submit
from tests.engine.jobs.watches import judging_watch
from tests.service import eventually

pytestmark = pytest.mark.usefixtures("no_other_jobs")

GRACE = get_settings().unknown_task_grace
DEAD, PENDING, RUNNING = Status.DEAD, Status.PENDING, Status.RUNNING


async def lost(**values: Any) -> UUID:
    """Make a job that runs, and whose lease has ended."""
    held: dict[str, Any] = {"status": RUNNING, "attempts": 1, "wake_at": db_time(-1)}
    return await submit(probes.echo, "a", **(held | values))


async def know(session: AsyncSession, task: str, age: float) -> None:
    """Note that a host knew the task so many seconds ago. This process has no such task."""
    assert task not in registry()
    await session.execute(insert(known_tasks).values(name=task, seen_at=db_time(-age)))
    await session.commit()


async def pass_by(session: AsyncSession, *tasks: str, seconds: float = GRACE + 1) -> None:
    """Let time pass for these tasks, while other tasks are still known."""
    await judging_watch().step()
    aged = update(known_tasks).where(known_tasks.c.name.in_(tasks))
    await session.execute(aged.values(seen_at=db_time(-seconds)))
    await session.commit()


async def test_a_lost_job_is_taken_back_uncounted() -> None:
    job_id = await lost(error="RuntimeError: of the try before")
    await judging_watch().step()
    row = await row_of(job_id)
    assert (row.status, row.attempts, row.max_attempts) == (PENDING, 1, 6)
    assert (row.crashes, row.finished_at) == (1, None)
    assert row.error == "RuntimeError: of the try before"
    assert row.run_at <= await database_now()


async def test_a_job_that_keeps_killing_its_workers_is_dead() -> None:
    job_id = await lost(attempts=3, crashes=get_settings().max_crashes - 1)
    with capture_logs() as logs:
        await judging_watch().step()
    row = await row_of(job_id)
    assert (row.status, row.attempts, row.wake_at) == (DEAD, 3, None)
    assert row.error.startswith("WorkerLost")
    assert row.started_at is None or row.started_at <= row.finished_at
    assert [(line["event"], line["job_id"]) for line in logs] == [("job.dead", str(job_id))]


async def test_a_count_at_its_limit_stops_nobody() -> None:
    full = await lost(attempts=MAX_COUNT, max_attempts=MAX_COUNT, crashes=0)
    crashed, other = await lost(crashes=MAX_COUNT, pushes=MAX_COUNT), await lost()
    await judging_watch().step()
    assert await statuses(full, crashed, other) == [PENDING, DEAD, PENDING]
    assert (await row_of(full)).max_attempts == MAX_COUNT


async def test_a_running_job_in_its_lease_is_left_alone() -> None:
    job_id = await lost(wake_at=db_time(60))
    before = await row_of(job_id)
    await judging_watch().step()
    assert await row_of(job_id) == before


@pytest.mark.parametrize("status", [each for each in Status if each is not RUNNING])
async def test_only_what_runs_is_taken_back(status: Status) -> None:
    job_id = await lost(status=status)
    before = await row_of(job_id)
    await judging_watch().step()
    assert await row_of(job_id) == before


async def test_several_watches_at_once_take_a_job_back_once() -> None:
    ids = [await lost() for _ in range(30)]
    watches = [judging_watch() for _ in range(5)]
    await asyncio.gather(*(each.step() for each in watches))
    await judging_watch().step()  # it finds nothing left: no watch had to wait for another's lock
    assert [(await row_of(job_id)).crashes for job_id in ids] == [1] * 30


async def test_one_that_was_blocked_lets_leases_be_extended_first() -> None:
    """No lease could be extended in its process while it was blocked, but it can be now."""
    job_id, blocked = await lost(), _Watch()
    blocked._looked -= 60
    await blocked.step()
    await blocked.step()
    assert await statuses(job_id) == [RUNNING]
    await change(job_id, wake_at=db_time(60))
    other = await lost()

    async def taken_back() -> bool:
        await blocked.step()
        return await statuses(other) == [PENDING]

    await eventually(taken_back)
    assert await statuses(job_id) == [RUNNING]


async def test_a_task_that_no_host_knows_is_dead_after_a_grace(session: AsyncSession) -> None:
    old = await submit(probes.echo, "a", task="gone.task", run_at=db_time(-GRACE - 1))
    new = await submit(probes.echo, "a", task="gone.task", run_at=db_time(-GRACE + 60))
    await pass_by(session, "gone.task", seconds=GRACE - 60)
    await judging_watch().step()
    assert await statuses(old) == [PENDING], (
        "the grace begins when the task is missed, not when the job is due"
    )
    await pass_by(session, "gone.task")
    with capture_logs() as logs:
        await judging_watch().step()
    row = await row_of(old)
    assert (row.status, row.attempts, row.wake_at) == (DEAD, 0, None)
    assert row.error.startswith("UnknownTask")
    assert row.run_at <= row.finished_at <= await database_now()
    assert await statuses(new) == [PENDING]
    assert [(line["event"], line["job_id"]) for line in logs] == [("job.dead", str(old))]


async def test_a_job_that_crashed_ends_with_its_task_too(session: AsyncSession) -> None:
    """The last worker of a release was killed while it ran a task that the next one lacks."""
    lane: dict[str, Any] = {"task": "gone.task", "crashes": 1}
    old = await submit(probes.echo, "a", run_at=db_time(-GRACE - 1), **lane)
    new = await submit(probes.echo, "a", run_at=db_time(-GRACE + 60), **lane)
    other = await submit(probes.echo, "a", run_at=db_time(-GRACE - 1), crashes=1)
    await pass_by(session, "gone.task")
    await judging_watch().step()
    assert await statuses(old, new, other) == [DEAD, PENDING, PENDING]
    assert (await row_of(old)).error.startswith("UnknownTask")


async def test_a_task_that_another_host_knows_is_left_to_it(session: AsyncSession) -> None:
    """During a rolling update, or in a full queue, it waits for any length of time."""
    await know(session, "of.another_release", GRACE - 60)
    waits = await submit(probes.echo, "a", task="of.another_release", run_at=db_time(-GRACE - 1))
    await judging_watch().step()
    assert await statuses(waits) == [PENDING]


async def test_a_task_that_no_host_has_known_for_a_grace_is_dead(session: AsyncSession) -> None:
    await know(session, "of.a_release_before", 0)
    await pass_by(session, "of.a_release_before")
    gone = await submit(probes.echo, "a", task="of.a_release_before", run_at=db_time(-GRACE - 1))
    await judging_watch().step()
    assert await statuses(gone) == [DEAD]


async def test_each_kind_that_waits_is_looked_at(session: AsyncSession) -> None:
    """Each pair of queue and task is checked, among many others and tasks that are known here."""
    await know(session, "of.another_release", 0)
    old = db_time(-GRACE - 1)
    names = ["a.gone", "of.another_release", "probes.echo", "z.gone"]
    kinds = [(queue, name) for queue in ("default", "orders", "workflows") for name in names]
    ids = {
        (queue, name, n): await submit(probes.echo, "a", queue=queue, task=name, run_at=old)
        for queue, name in kinds
        for n in range(3)
    }
    await pass_by(session, "a.gone", "z.gone")
    await judging_watch().step()
    found = {kind: (await statuses(job_id))[0] for kind, job_id in ids.items()}
    assert found == {kind: DEAD if "gone" in kind[1] else PENDING for kind in ids}


async def test_a_job_that_is_due_later_outlives_its_task() -> None:
    """A process may know its task by then. The grace begins when the job is due."""
    later = await submit(probes.echo, "a", task="gone.task", run_at=db_time(60))
    await judging_watch().step()
    assert await statuses(later) == [PENDING]


async def test_a_backlog_of_before_an_outage_waits_for_its_release(session: AsyncSession) -> None:
    """No process ran that could know its task. One that knows it may start a moment later."""
    await know(session, "of.another_release", 2 * GRACE)
    waits = await submit(probes.echo, "a", task="of.another_release", run_at=db_time(-2 * GRACE))
    await judging_watch().step()
    await judging_watch().step()
    assert await statuses(waits) == [PENDING]


async def test_a_running_job_says_that_its_task_is_known(session: AsyncSession) -> None:
    """Processes of 0.1.0 don't say which tasks they know."""
    await submit(probes.echo, "a", task="of.0_1_0", status=RUNNING, wake_at=db_time(60))
    waits = await submit(probes.echo, "a", task="of.0_1_0", run_at=db_time(-GRACE - 1))
    await pass_by(session, "of.0_1_0")
    await judging_watch().step()
    assert await statuses(waits) == [PENDING]


@pytest.mark.parametrize(("silent", "status"), [(SILENT - 20, PENDING), (SILENT + 1, DEAD)])
async def test_a_live_process_keeps_what_it_knows(
    session: AsyncSession, silent: float, status: Status
) -> None:
    waits = await submit(probes.echo, "a", task="of.another", run_at=db_time(-GRACE - 1))
    await pass_by(session, "of.another")
    other = {"id": uuid4(), "host": "another", "pid": 1, "queues": [], "slots": 0, "busy": 0}
    seen = {"tasks": {"of.another": "0"}, "started_at": db_time(-9), "seen_at": db_time(-silent)}
    await session.execute(insert(processes).values(other | seen))
    await session.commit()
    await judging_watch().step()
    assert await statuses(waits) == [status]


async def test_a_host_vouches_for_its_tasks(session: AsyncSession) -> None:
    await session.execute(insert(known_tasks).values(name="probes.echo", seen_at=db_time(-9999)))
    await session.commit()
    await judging_watch().step()
    seen = select(known_tasks.c.name).where(known_tasks.c.seen_at > db_time(-60))
    assert set(await session.scalars(seen)) == set(registry())


async def test_a_watch_outlives_its_tables(session: AsyncSession) -> None:
    """The table is missing, as it is before the first migration."""
    job_id = await lost()
    with capture_logs() as logs:

        async def failed() -> bool:
            return any(line["event"] == "watch.failed" for line in logs)

        await session.execute(text("ALTER TABLE jobs RENAME TO away"))
        await session.commit()
        async with in_background(watch(new_watch())):
            await eventually(failed)
            await session.execute(text("ALTER TABLE away RENAME TO jobs"))
            await session.commit()
            await status_is(job_id, PENDING)
