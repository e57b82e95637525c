from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.config import get_settings
from app.core.database import IS_SQLITE, AsyncSessionLocal, jobs_engine
from app.jobs import Jobs
from app.jobs.relay import Message, relaying
from app.jobs.table import HEAD_START, Status, clock, jobs, take_due
from tests import probes
from tests.jobs.recorder import Recorder
from tests.service import eventually


def transports(recorder: Recorder) -> dict[str, Recorder]:
    return dict.fromkeys(Recorder.backends(), recorder)


async def submit(session: AsyncSession, **values: object) -> UUID:
    """A job that nobody in this process pushes."""
    job = await Jobs(session).submit(probes.echo, "a")
    if values:
        await session.execute(update(jobs).where(jobs.c.id == job.id).values(values))
    await session.commit()
    return job.id


async def row_of(job_id: UUID) -> dict[str, object]:
    async with AsyncSessionLocal() as session:
        return dict((await Jobs(session).get(job_id))._mapping)


async def test_what_a_script_committed_is_pushed(session: AsyncSession) -> None:
    job_id = await submit(session)
    async with relaying(transports(sent := Recorder())):
        await sent.received(Message(job_id, "probes.echo", "default"))


async def test_a_job_that_is_not_due_is_not_pushed(session: AsyncSession) -> None:
    later = (await Jobs(session).submit(probes.echo, "a", delay=timedelta(hours=1))).id
    job_id = await submit(session)
    async with relaying(transports(sent := Recorder())):
        await sent.received(Message(job_id, "probes.echo", "default"))
    assert later not in {message.id for message in sent.messages}


async def test_a_lost_job_is_taken_back_uncounted(session: AsyncSession) -> None:
    lost = {"status": Status.RUNNING, "attempts": 1, "wake_at": clock(-1)}
    job_id = await submit(session, **lost)
    async with relaying(transports(sent := Recorder())):
        await sent.received(Message(job_id, "probes.echo", "default"))
    row = await row_of(job_id)
    assert (row["status"], row["attempts"], row["max_attempts"]) == (Status.PENDING, 1, 6)


async def test_a_job_that_keeps_killing_its_workers_is_dead(session: AsyncSession) -> None:
    crashes = get_settings().max_crashes - 1
    lost = {"status": Status.RUNNING, "attempts": 3, "crashes": crashes, "wake_at": clock(-1)}
    job_id = await submit(session, **lost)

    async def dead() -> bool:
        return (await row_of(job_id))["status"] == Status.DEAD

    async with relaying(transports(sent := Recorder())):
        await eventually(dead)
    row = await row_of(job_id)
    assert str(row["error"]).startswith("WorkerLost")
    assert row["wake_at"] is None
    assert job_id not in {message.id for message in sent.messages}


async def test_a_task_that_no_release_knows_is_dead_after_a_grace(session: AsyncSession) -> None:
    grace = get_settings().unknown_task_grace
    old = await submit(session, task="gone.task", run_at=clock(-grace - 1))
    new = await submit(session, task="new.task")

    async def dead() -> bool:
        return (await row_of(old))["status"] == Status.DEAD

    async with relaying(transports(sent := Recorder())):
        await eventually(dead)
        await sent.received(Message(new, "new.task", "default"))
    assert str((await row_of(old))["error"]).startswith("UnknownTask")


async def test_a_running_job_in_its_lease_is_left_alone(session: AsyncSession) -> None:
    running = await submit(session, status=Status.RUNNING, attempts=1, wake_at=clock(60))
    job_id = await submit(session)
    async with relaying(transports(sent := Recorder())):
        await sent.received(Message(job_id, "probes.echo", "default"))
    assert (await row_of(running))["status"] == Status.RUNNING


async def test_pushing_again_waits_longer_each_time(session: AsyncSession) -> None:
    job_id = await submit(session, pushes=3, wake_at=clock(-1))
    async with relaying(transports(sent := Recorder())):
        await sent.received(Message(job_id, "probes.echo", "default"))
    later = jobs.c.wake_at > clock(3 * HEAD_START)
    row = (await session.execute(select(jobs.c.pushes, later).where(jobs.c.id == job_id))).one()
    assert tuple(row) == (4, True)


async def test_what_the_broker_still_holds_is_not_pushed_again(session: AsyncSession) -> None:
    job_id = await submit(session, pushes=3, wake_at=clock(-1))
    sent = Recorder()
    sent.holds = 1_000_000

    async def looked_at() -> bool:
        return (await row_of(job_id))["pushes"] == 4

    async with relaying(transports(sent)):
        await eventually(looked_at)
        new = await submit(session)
        await sent.received(Message(new, "probes.echo", "default"))
        assert job_id not in {message.id for message in sent.messages}
        sent.holds = 0  # it has lost all
        await session.execute(update(jobs).where(jobs.c.id == job_id).values(wake_at=clock(0)))
        await session.commit()
        await sent.received(Message(job_id, "probes.echo", "default"))


async def test_a_relay_that_was_blocked_lets_leases_be_extended_first(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await submit(session, status=Status.RUNNING, attempts=1, wake_at=clock(-1))
    due = await submit(session)
    async with relaying(transports(sent := Recorder())) as blocked:
        monkeypatch.setattr(blocked, "_looked", blocked._looked - 60)
        await sent.received(Message(due, "probes.echo", "default"))
        assert (await row_of(job_id))["status"] == Status.RUNNING
        await sent.received(Message(job_id, "probes.echo", "default"))


async def test_a_failed_push_is_tried_again(session: AsyncSession) -> None:
    sent = Recorder()
    sent.down = True
    async with relaying(transports(sent)):
        job = await Jobs(session).submit(probes.echo, "a")
        await session.commit()

        async def postponed() -> bool:
            row = await row_of(job.id)
            return row["wake_at"] != row["run_at"] and sent.messages == []

        await eventually(postponed)
        sent.down = False
        await sent.received(Message(job.id, "probes.echo", "default"))


async def test_a_push_that_got_through_though_it_failed_is_not_repeated(
    session: AsyncSession,
) -> None:
    sent = Recorder()
    sent.down, sent.holds = True, 1_000_000
    async with relaying(transports(sent)):
        job = await Jobs(session).submit(probes.echo, "a")
        await session.commit()

        async def looked_at_again() -> bool:
            return (await row_of(job.id))["pushes"] == 2

        await eventually(looked_at_again)
        sent.down = False
        new = await submit(session)
        await sent.received(Message(new, "probes.echo", "default"))
        assert job.id not in {message.id for message in sent.messages}


async def test_a_process_takes_only_what_it_carries(session: AsyncSession) -> None:
    job_id = await submit(session)
    async with relaying({}):
        pass
    assert (await row_of(job_id))["pushes"] == 0


async def test_its_statement_reads_only_what_is_due() -> None:
    """By the partial index: a clock that the planner can't rely on would read all that waits."""
    expanded = {"render_postcompile": True}
    statement = take_due(["default"]).compile(jobs_engine, compile_kwargs=expanded)
    names, values = getattr(statement, "positiontup", None), dict(statement.params)
    explain = ("EXPLAIN QUERY PLAN " if IS_SQLITE else "EXPLAIN ") + str(statement)
    async with jobs_engine.connect() as connection:
        if not IS_SQLITE:
            await connection.exec_driver_sql("SET enable_seqscan = off")  # the table is small
        bound = tuple(values[name] for name in names) if names else values
        plan = (await connection.exec_driver_sql(explain, bound)).all()
        await connection.invalidate()
    used = "INDEX jobs_wake_at (wake_at<?)" if IS_SQLITE else "Index Cond: (wake_at <="
    assert any(used in str(row) for row in plan), plan
