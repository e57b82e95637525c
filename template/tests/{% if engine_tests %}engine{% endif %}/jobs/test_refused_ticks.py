"""A tick whose job can't be submitted stays due, is reported, and stops no other."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from app.config import get_settings
from app.jobs import Date, Interval, ScheduleConflictError, Schedules
from app.jobs.dispatcher import run_due, wake
from tests.engine.jobs.rows import database_now
from tests.engine.jobs.schedule_rows import (
    HOUR,
    add,
    add_late,
    change_definition,
    jobs_of,
    row_of,
)

pytestmark = pytest.mark.usefixtures("no_other_schedules")


async def test_arguments_of_another_release_are_left_to_its_clock(session: AsyncSession) -> None:
    """As a job with this release's signature they would be dead at once on its hosts."""
    schedule_id, tick = await add(session, Interval(hours=1), HOUR)
    await change_definition(session, args={"text": "a", "new": 1}, misfire_grace=7200)
    with capture_logs() as logs:
        await run_due()
        await run_due()
    assert await jobs_of(session, schedule_id) == []
    assert (await row_of(session, schedule_id)).next_tick == tick
    [line] = logs
    assert (line["event"], line["schedule_id"]) == ("schedule.broken", schedule_id)
    assert "new" in line["error"]
    with pytest.raises(ScheduleConflictError, match="new: Extra inputs are not permitted"):
        await Schedules(session).run(schedule_id)
    await change_definition(session, args={"text": "a"})
    await run_due()
    [job] = await jobs_of(session, schedule_id)
    assert job.args == {"text": "a"}


async def test_a_schedule_whose_queue_nothing_carries_cannot_be_run(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule_id, _ = await add(session, Interval(hours=1), HOUR)
    monkeypatch.setattr(get_settings(), "queues", {"other": "none"})
    with pytest.raises(ScheduleConflictError, match=r"it is broken: .*queue"):
        await Schedules(session).run(schedule_id)


@pytest.mark.postgresql  # SQLite keeps any value in any column
async def test_a_job_that_the_database_refuses_stops_no_other_schedule(
    session: AsyncSession,
) -> None:
    bad, tick = await add_late(session)
    good, _ = await add_late(session)
    refuse = f"CHECK (key NOT LIKE 'schedule:{bad}:%') NOT VALID"
    await session.execute(text(f"ALTER TABLE jobs ADD CONSTRAINT refused {refuse}"))
    await session.commit()
    try:
        with capture_logs() as logs:
            await run_due()
            later, _ = await add_late(session)
            await run_due()
    finally:
        await session.execute(text("ALTER TABLE jobs DROP CONSTRAINT refused"))
        await session.commit()
    assert [len(await jobs_of(session, each)) for each in (bad, good, later)] == [0, 1, 1]
    assert (await row_of(session, bad)).next_tick == tick
    [line] = logs
    assert (line["event"], line["schedule_id"]) == ("schedule.broken", bad)
    assert "refused" in line["error"]
    assert "tick" not in line["error"]  # the argument
    await run_due()
    assert len(await jobs_of(session, bad)) == 1


async def test_what_a_batch_did_is_told_once_it_has_committed(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two schedules has missed its tick. The batch fails at the second one."""
    monkeypatch.setattr("app.jobs.dispatcher.WAKE_LIMIT", 60)  # a slow batch ends after the first
    missed = await database_now() - 2 * HOUR
    missing, _ = await add(session, Date(missed), 3 * HOUR)
    late, _ = await add_late(session)
    await session.execute(text("ALTER TABLE jobs RENAME TO away"))
    await session.commit()
    with capture_logs() as logs:
        await wake()
        await wake()
        await session.execute(text("ALTER TABLE away RENAME TO jobs"))
        await session.commit()
        assert (await row_of(session, missing)).missed_since is None
        await wake()
        await wake()
    told = [line["event"] for line in logs if line["event"] != "dispatcher.failed"]
    assert told == ["schedule.ticks_missed"]
    assert (await row_of(session, missing)).missed_since == missed
    assert len(await jobs_of(session, late)) == 1


async def test_a_change_that_mends_a_schedule_can_resume_it(session: AsyncSession) -> None:
    schedule_id, _ = await add(session, Interval(hours=1), HOUR, paused=True)
    await change_definition(session, misfire_grace="long")
    service = Schedules(session)
    with pytest.raises(ScheduleConflictError, match="it is broken: misfire_grace"):
        await service.change(schedule_id, 1, paused=False)
    mended = await service.change(schedule_id, 1, paused=False, misfire_grace=60)
    assert (mended.paused, mended.problem) == (False, None)


async def test_a_tick_at_the_end_of_the_calendar_is_shown(session: AsyncSession) -> None:
    last = datetime(9999, 12, 31, 23, tzinfo=UTC)
    schedule_id, _ = await add(session, Interval(hours=1), HOUR, next_tick=last)
    assert (await Schedules(session).get(schedule_id)).upcoming() == [last]
