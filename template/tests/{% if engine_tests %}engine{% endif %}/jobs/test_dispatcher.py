"""Each due tick becomes one job. The tests set `next_tick` to a time that has passed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from app.core.concurrency import in_background
from app.core.database import jobs_engine
from app.jobs import Date, Interval, dispatcher, metrics
from app.jobs.dispatcher import BATCH, every_second, run_due
from app.jobs.table import jobs, schedules
from tests.engine.jobs.rows import database_now
from tests.engine.jobs.schedule_rows import (
    HOUR,
    MINUTE,
    SECOND,
    add,
    add_late,
    change_definition,
    jobs_of,
    row_of,
)
from tests.engine.jobs.statements import SESSIONS
from tests.service import eventually

pytestmark = pytest.mark.usefixtures("no_other_schedules")


async def test_a_due_tick_becomes_one_job(session: AsyncSession) -> None:
    schedule_id, tick = await add(session, Interval(hours=1), HOUR)
    await change_definition(session, misfire_grace=7200)
    await run_due()
    await run_due()
    [job] = await jobs_of(session, schedule_id)
    assert (job.task, job.args, job.status) == ("probes.echo", {"text": "tick"}, "pending")
    assert job.key == f"schedule:{schedule_id}:{tick:%Y-%m-%dT%H:%M:%SZ}"
    row = await row_of(session, schedule_id)
    assert (row.last_tick, row.last_job_id) == (tick, job.id)
    assert (row.next_tick, row.missed_since) == (tick + HOUR, None)


async def test_many_clocks_make_one_job_a_tick(session: AsyncSession) -> None:
    ids = [(await add_late(session))[0] for _ in range(20)]
    await asyncio.gather(*(run_due() for _ in range(5)))
    assert [len(await jobs_of(session, schedule_id)) for schedule_id in ids] == [1] * 20


async def test_a_tick_is_never_submitted_again(session: AsyncSession) -> None:
    """On SQLite two clocks may read the same row. The job of the first may have ended by then."""
    schedule_id, tick = await add_late(session)
    await run_due()
    [job] = await jobs_of(session, schedule_id)
    ended = update(jobs).where(jobs.c.id == job.id).values(status="succeeded", wake_at=None)
    await session.execute(ended)
    await session.execute(update(schedules).values(next_tick=tick))
    await session.commit()
    await run_due()
    assert [each.id for each in await jobs_of(session, schedule_id)] == [job.id]
    row = await row_of(session, schedule_id)
    assert (row.last_job_id, row.next_tick) == (job.id, None)


async def test_no_tick_runs_beside_the_job_that_another_clock_has_made(
    session: AsyncSession,
) -> None:
    """On SQLite two clocks may read the same row. The second one knows no job of the first."""
    schedule_id, tick = await add(session, Interval(seconds=1), 3 * SECOND)
    await change_definition(session, catch_up="each", overlap="skip")
    await run_due()
    [job] = await jobs_of(session, schedule_id)
    await session.execute(update(schedules).values(next_tick=tick, last_job_id=None))
    await session.commit()
    await run_due()
    assert [each.id for each in await jobs_of(session, schedule_id)] == [job.id]
    assert (await row_of(session, schedule_id)).next_tick == tick + SECOND


async def test_a_paused_schedule_is_left_alone(session: AsyncSession) -> None:
    schedule_id, tick = await add_late(session, paused=True)
    await run_due()
    assert await jobs_of(session, schedule_id) == []
    assert (await row_of(session, schedule_id)).next_tick == tick


async def test_a_task_that_is_not_known_here_is_left_to_others(session: AsyncSession) -> None:
    schedule_id, tick = await add_late(session, task="newer.task")
    with capture_logs() as logs:
        await run_due()
    assert (await row_of(session, schedule_id)).next_tick == tick
    assert logs == []


async def test_missed_ticks_are_recorded_as_a_span(session: AsyncSession) -> None:
    schedule_id, tick = await add(session, Interval(seconds=1), timedelta(days=7))
    with capture_logs() as logs:
        await run_due()
    row = await row_of(session, schedule_id)
    assert row.missed_since == tick
    assert timedelta(days=7, minutes=-5) - (row.missed_until - tick) < 2 * SECOND
    assert [line["event"] for line in logs] == ["schedule.ticks_missed"]
    assert 1 < len(await jobs_of(session, schedule_id)) < 20  # the last late one, and those on time


async def test_each_late_tick_gets_its_job(session: AsyncSession) -> None:
    schedule_id, tick = await add(session, Interval(seconds=1), (2 * BATCH + 50) * SECOND)
    await change_definition(session, catch_up="each")
    await run_due()
    row = await row_of(session, schedule_id)
    seconds = range(int((row.next_tick - tick).total_seconds()))
    keys = [job.key.partition(f"{schedule_id}:")[2] for job in await jobs_of(session, schedule_id)]
    assert keys == [f"{tick + n * SECOND:%Y-%m-%dT%H:%M:%SZ}" for n in seconds]
    assert len(keys) >= 2 * BATCH + 50


@pytest.mark.parametrize("status", ["pending", "running", "succeeded", "dead", "cancelled"])
async def test_a_tick_is_skipped_while_the_last_job_is_unfinished(
    session: AsyncSession, status: str
) -> None:
    schedule_id, tick = await add(session, Interval(minutes=1), 3 * MINUTE)
    await change_definition(session, catch_up="each", overlap="skip")
    await run_due()
    [first] = await jobs_of(session, schedule_id)
    found = update(jobs).where(jobs.c.id == first.id).values(status=status, wake_at=None)
    await session.execute(found)
    await session.execute(update(schedules).values(next_tick=tick + MINUTE))
    await session.commit()
    await run_due()
    ran = [tick] if status in ("pending", "running") else [tick, tick + MINUTE]
    keys = [job.key for job in await jobs_of(session, schedule_id)]
    assert keys == [f"schedule:{schedule_id}:{each:%Y-%m-%dT%H:%M:%SZ}" for each in ran]
    assert (await row_of(session, schedule_id)).next_tick > tick + 2 * MINUTE


async def test_broken_schedules_stop_no_other(session: AsyncSession) -> None:
    """They are older than the good one, and more than fit into a batch."""
    broken = dict([await add(session, Interval(seconds=1), 9 * SECOND) for _ in range(BATCH + 1)])
    one = next(iter(broken))
    await session.execute(update(schedules).values(definition={"trigger": {"kind": "lunar"}}))
    await session.execute(update(schedules).where(schedules.c.id == one).values(definition={}))
    await session.commit()
    good, _ = await add(session, Interval(seconds=1), 2 * SECOND)
    with capture_logs() as logs:
        async with asyncio.timeout(20):
            await run_due()
            await run_due()
    assert await jobs_of(session, good)
    assert sorted(line["schedule_id"] for line in logs) == sorted(broken)
    assert (await row_of(session, one)).next_tick == broken[one]


async def test_a_clock_outlives_its_database(session: AsyncSession) -> None:
    schedule_id, _ = await add(session, Interval(seconds=1), SECOND)
    with capture_logs() as logs:

        async def failed() -> bool:
            return any(line["event"] == "dispatcher.failed" for line in logs)

        async def ticked() -> bool:
            return len(await jobs_of(session, schedule_id)) > 0

        await session.execute(text("ALTER TABLE schedules RENAME TO away"))
        await session.commit()
        async with in_background(every_second()):
            await eventually(failed)
            await session.execute(text("ALTER TABLE away RENAME TO schedules"))
            await session.commit()
            await eventually(ticked)


async def test_only_a_tick_that_is_late_is_counted(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = list[str]()
    monkeypatch.setattr(metrics, "_recorder", lambda name, labels, value: counted.append(name))
    late, _ = await add_late(session)
    await run_due()
    assert counted == ["schedules_ticks_late_total"]
    on_time, _ = await add(session, Date(await database_now()), HOUR)
    await run_due()
    assert [len(await jobs_of(session, each)) for each in (late, on_time)] == [1, 1]
    assert counted == ["schedules_ticks_late_total"]


async def test_a_backlog_makes_no_other_schedule_late(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, _ = await add_late(session)
    on_time, _ = await add(session, Date(await database_now()), HOUR)
    monkeypatch.setattr(dispatcher, "BATCH", 1)
    await dispatcher._run_batch(set())
    assert await jobs_of(session, late) == []
    assert len(await jobs_of(session, on_time)) == 1


@pytest.mark.sqlite
async def test_a_tick_that_was_written_without_microseconds_is_moved(session: AsyncSession) -> None:
    schedule_id, tick = await add(session, Interval(hours=1), HOUR)
    await session.execute(text(f"UPDATE schedules SET next_tick = '{tick:%Y-%m-%d %H:%M:%S}'"))
    await session.commit()
    await run_due()
    assert (await row_of(session, schedule_id)).next_tick == tick + HOUR


@pytest.mark.sqlite  # PostgreSQL reads a small table without its index
async def test_due_schedules_are_found_by_their_index(session: AsyncSession) -> None:
    made: list[tuple[str, Any]] = []

    def note(connection: object, cursor: object, statement: str, values: Any, *_: object) -> None:
        if "FROM schedules" in statement:
            made.append((statement, values))

    event.listen(SESSIONS, "before_cursor_execute", note)
    try:
        await run_due()
    finally:
        event.remove(SESSIONS, "before_cursor_execute", note)
    [(statement, values)] = made
    async with jobs_engine.connect() as connection:
        plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        assert "USING INDEX schedules_next_tick" in str(plan.all())
