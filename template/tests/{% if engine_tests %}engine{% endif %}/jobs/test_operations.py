"""Operators find and change many jobs at a time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import String, cast, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.contextvars import bound_contextvars

from app.jobs import (
    Interval,
    JobFilter,
    Jobs,
    QueueNotFoundError,
    Schedule,
    Schedules,
    Status,
    finding,
    queues,
)
from app.jobs.processes import FORGOTTEN, Presence
from app.jobs.schedules import Definition, definition_of
from app.jobs.table import db_time, jobs, processes, schedules
from tests.engine import probes

pytestmark = pytest.mark.usefixtures("no_other_jobs")

LATER = timedelta(hours=1)


async def make(session: AsyncSession, number: int, **values: Any) -> list[UUID]:
    made = await Jobs(session).submit_many(probes.echo, [(str(n),) for n in range(number)])
    ids = [job.id for job in made]
    if values:
        await session.execute(update(jobs).where(jobs.c.id.in_(ids)).values(values))
    return ids


async def dead(session: AsyncSession, number: int, **values: Any) -> list[UUID]:
    ended = {"status": Status.DEAD, "finished_at": db_time(0), "attempts": 3, "pushes": 0}
    return await make(session, number, **(ended | {"error": "ValueError: no Such_thing"} | values))


async def found(session: AsyncSession, **wanted: Any) -> set[UUID]:
    """Find jobs page by page; returns their ids."""
    page = await Jobs(session).find(JobFilter(**wanted), 2)
    seen = [*page.jobs]
    while page.next:
        page = await Jobs(session).find(JobFilter(**wanted), 2, after=page.next)
        seen += page.jobs
    ids = [job.id for job in seen]
    assert len(ids) == len(set(ids)) == await Jobs(session).count(JobFilter(**wanted))
    assert seen == sorted(seen, key=lambda job: (job.created_at, job.id), reverse=True)
    return set(ids)


async def test_jobs_are_found_by_each_condition(session: AsyncSession) -> None:
    waiting, failed = await make(session, 3), await dead(session, 3)
    named = await Jobs(session).submit(probes.alone, 1, key="k", queue="default", delay=LATER)
    assert await found(session) == {*waiting, *failed, named.id}
    assert await found(session, status=Status.DEAD) == set(failed)
    assert await found(session, task=probes.echo.name) == {*waiting, *failed}
    assert await found(session, key="k") == {named.id}
    assert await found(session, queue="default", task=probes.alone.name) == {named.id}
    assert await found(session, error="no such_thing") == set(failed)
    assert await found(session, error="no suchXthing") == await found(session, error="%") == set()
    await session.rollback()


async def test_jobs_are_found_by_when_they_were_made(session: AsyncSession) -> None:
    old, new = await make(session, 2, created_at=db_time(-7200)), await make(session, 2)
    now: datetime = (await session.execute(select(db_time(0)))).scalar_one()
    assert await found(session, until=now - LATER) == set(old)
    assert await found(session, since=now - LATER) == set(new)
    await session.rollback()


async def test_a_page_may_be_short_and_have_a_next_one(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page examines a limited number of rows, even if few match."""
    monkeypatch.setattr(finding, "EXAMINED", 3)
    [rare] = await dead(session, 1, error="Rare: once", created_at=db_time(-10))
    await dead(session, 7)
    await make(session, 7)
    wanted = JobFilter(error="rare")
    page = await Jobs(session).find(wanted, 5)
    assert (page.jobs, page.next is None) == ([], False)
    assert await found(session, error="rare") == {rare}
    await session.rollback()


async def test_dead_jobs_are_replayed_in_batches(session: AsyncSession) -> None:
    ids, others = await dead(session, 5), await dead(session, 2, error="KeyError: other")
    operations, wanted = Jobs(session), JobFilter(error="valueerror")
    changed = [await operations.replay_some(wanted, 2) for _ in range(4)]
    assert changed == [2, 2, 1, 0]
    replayed = await operations.get(ids[0])
    assert (replayed.status, replayed.max_attempts) == (Status.PENDING, 3 + probes.echo.tries)
    assert await found(session, status=Status.DEAD) == set(others)
    await session.rollback()


async def test_a_dead_job_whose_key_is_taken_stays_dead(session: AsyncSession) -> None:
    """Of several dead jobs with one key only the newest runs again."""
    ids = await dead(session, 3, key="same")
    [taken] = await dead(session, 1, key="taken")
    await Jobs(session).submit(probes.echo, "x", key="taken", delay=LATER)
    assert await Jobs(session).replay_some(JobFilter()) == 1
    assert await Jobs(session).replay_some(JobFilter(status=Status.DEAD)) == 0
    assert await Jobs(session).replay_some(JobFilter(status=Status.PENDING)) == 0
    left = await found(session, status=Status.DEAD)
    assert taken in left
    assert len(left & set(ids)) == 2
    await session.rollback()


async def test_an_empty_key_is_a_key(session: AsyncSession) -> None:
    """Replayed together, two such jobs would break the rule of one job for a key."""
    ids = await dead(session, 2, key="")
    operations = Jobs(session)
    assert [await operations.replay_some(JobFilter()) for _ in range(2)] == [1, 0]
    assert len(await found(session, status=Status.DEAD) & set(ids)) == 1
    await session.rollback()


async def test_what_waits_or_runs_is_cancelled_in_batches(session: AsyncSession) -> None:
    """A cancelled job's key is free again."""
    waiting, running = await make(session, 2), await make(session, 2, status=Status.RUNNING)
    failed = await dead(session, 1)
    kept = await Jobs(session).submit(probes.echo, "x", key="freed", delay=LATER)
    changed = [await Jobs(session).cancel_some(JobFilter(), 3) for _ in range(3)]
    assert changed == [3, 2, 0]
    assert await found(session, status=Status.CANCELLED) == {*waiting, *running, kept.id}
    assert await found(session, status=Status.DEAD) == set(failed)
    again = await Jobs(session).submit(probes.echo, "x", key="freed", delay=LATER)
    assert again.created
    await session.rollback()


async def test_queues_are_counted(session: AsyncSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MOST", 4)
    queue = probes.echo.queue
    await make(session, 3)
    await make(session, 1, crashes=1)
    await make(session, 2, run_at=db_time(3600))
    await make(session, 2, status=Status.RUNNING)
    await dead(session, 3)
    await dead(session, 1, queue="gone")
    by_name = {each.name: each for each in await Jobs(session).queues()}
    found = by_name[queue]
    assert (found.waiting, found.running, found.dead) == (4, 2, 3)
    assert (found.waiting_is_at_least, found.dead_is_at_least) == (False, False)
    assert found.oldest == (await session.scalar(select(func.min(jobs.c.run_at))))
    assert (by_name["gone"].backend, by_name["gone"].dead) == (None, 1)
    await make(session, 1)
    again = {each.name: each for each in await Jobs(session).queues()}[queue]
    assert (again.waiting, again.waiting_is_at_least) == (4, True)
    await session.rollback()


@pytest.mark.parametrize("column", ["queue", "task"])
async def test_any_number_of_queues_and_tasks_is_counted(
    session: AsyncSession, column: str
) -> None:
    """SQLite takes at most 500 SELECTs in a union."""
    await make(session, 800, **{column: cast(jobs.c.id, String)})
    await make(session, 1, status=Status.RUNNING)
    seen = await Jobs(session).queues()
    assert (sum(each.waiting for each in seen), sum(each.running for each in seen)) == (800, 1)
    first = await session.scalar(select(func.min(jobs.c.run_at)))
    assert {each.oldest for each in seen if each.waiting} == {first}
    await session.rollback()


async def test_a_pause_is_kept_in_the_table(session: AsyncSession) -> None:
    queue = probes.echo.queue
    await Jobs(session).pause(queue)
    first = {each.name: each.paused_at for each in await Jobs(session).queues()}
    await Jobs(session).pause(queue)
    assert first == {each.name: each.paused_at for each in await Jobs(session).queues()}
    assert [name for name, paused in first.items() if paused] == [queue]
    await Jobs(session).resume(queue)
    assert not any(each.paused_at for each in await Jobs(session).queues())
    with pytest.raises(QueueNotFoundError):
        await Jobs(session).pause("unknown")
    await session.rollback()


async def test_processes_are_seen(session: AsyncSession) -> None:
    backend = next(each.backend for each in await Jobs(session).queues())
    before = {each.name: each.processes for each in await Jobs(session).queues()}
    presence = Presence(backend, slots=3, busy=lambda: 2)
    async with presence.kept():
        await presence.say()
        seen = [each for each in await Jobs(session).processes() if each.id == presence._id]
        after = {each.name: each.processes for each in await Jobs(session).queues()}
        await session.execute(update(processes).values(seen_at=db_time(-FORGOTTEN - 1)))
        assert await Jobs(session).processes() == []
        await session.rollback()
    [shown] = seen
    assert (shown.backend, shown.slots, shown.busy, shown.alive) == (backend, 3, 2, True)
    assert {name: after[name] - before[name] for name in after} == {
        name: int(name in shown.queues) for name in after
    }


async def test_a_job_names_what_submitted_it(session: AsyncSession) -> None:
    with bound_contextvars(request_id="r" * 300):
        [one] = await Jobs(session).submit_many(probes.echo, [("x",)])
        other = await Jobs(session).submit(probes.echo, "x")
    for job in (one, other):
        assert (await Jobs(session).get(job.id)).origin == {"request_id": "r" * 200}
    await session.rollback()


async def test_a_schedule_says_how_late_it_is_and_what_comes_next(session: AsyncSession) -> None:
    service, hour = Schedules(session), timedelta(hours=1)
    wanted = Schedule("hourly", Interval(hours=1), probes.echo, ("x",))
    definition = Definition.model_validate(definition_of(wanted))
    on_time = await service.create("hourly", probes.echo.name, definition)
    assert on_time.late is None
    await session.execute(update(schedules).values(next_tick=db_time(-60)))
    overdue = await service.get("hourly")
    assert overdue.late and overdue.next_tick and overdue.late >= timedelta(seconds=60)
    ticks = overdue.upcoming()
    assert (ticks[0], ticks[2] - ticks[1]) == (overdue.next_tick, hour)
    paused = await service.change("hourly", overdue.revision, paused=True)
    assert (paused.late, paused.upcoming()) == (None, [])
    await session.rollback()
