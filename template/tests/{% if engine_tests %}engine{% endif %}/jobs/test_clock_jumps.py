"""The database's clock jumps. Leases, due times and ticks were computed from the old time."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from app.config import get_settings
from app.core.control import control
from app.core.outages import TOLERANCE, DatabaseClock, database_clock
from app.jobs import Cron, Date, Interval, Schedule, Status, claims
from app.jobs.dispatcher import wake
from app.jobs.schedules import definition_of
from app.jobs.table import HEAD_START, db_time, schedules
from app.jobs.triggers import Trigger
from tests.engine import probes
from tests.engine.jobs.rows import database_now, row_of, statuses, submit
from tests.engine.jobs.statements import statements
from tests.engine.jobs.watches import judging_watch

HOUR = 3600
NOW = datetime(2026, 3, 1, tzinfo=UTC)

pytestmark = pytest.mark.usefixtures("no_other_jobs")


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


async def note_another_time(by: float) -> None:
    """Let this process believe that the database's clock was so many seconds ahead."""
    database_clock.note(await database_now() + seconds(by), time.monotonic())


@pytest.mark.parametrize("by", [HOUR, -HOUR, 2 * TOLERANCE, -2 * TOLERANCE])
def test_a_jump_is_logged_and_told_of(by: float) -> None:
    known, asked = DatabaseClock(), time.monotonic()
    known.note(NOW, asked)
    with capture_logs() as logs:
        known.note(NOW + seconds(by), time.monotonic())
        known.note(NOW + seconds(by), time.monotonic())
    jump = known.recent_jump()
    assert jump
    assert jump.seconds == pytest.approx(by, abs=TOLERANCE / 2)
    assert [line["event"] for line in logs] == ["clock.jumped"]
    word = "forward" if by > 0 else "back"
    assert str(jump) == f"jumped {word} {abs(jump.seconds):.0f} s"


def test_a_late_answer_and_a_slow_drift_are_no_jump() -> None:
    known, asked = DatabaseClock(), time.monotonic()
    known.note(NOW, asked)
    known.note(NOW - seconds(50), asked - 60)  # the answer comes a minute after the question
    for step in range(1, 10):
        known.note(NOW + seconds(step * TOLERANCE / 2), time.monotonic())
    assert known.recent_jump() is None


async def test_after_a_jump_forward_leases_can_be_extended_first() -> None:
    job_id = await submit(probes.echo, "a", status=Status.RUNNING, attempts=1, wake_at=db_time(-1))
    await note_another_time(-HOUR)
    watch = judging_watch()
    await watch.step()
    await watch.step()
    assert await statuses(job_id) == [Status.RUNNING]
    watch.wait(0)
    await watch.step()
    assert await statuses(job_id) == [Status.PENDING]


async def test_a_lease_that_only_a_jump_has_ended_is_left_alone() -> None:
    """The process that would take it back may not have noticed the jump yet."""
    job_id = await submit(probes.echo, "a", status=Status.RUNNING, attempts=1, wake_at=db_time(-1))
    latest = await database_now() - seconds(HOUR)
    assert await control(lambda connection: claims.take_back(connection, latest)) == []
    assert await statuses(job_id) == [Status.RUNNING]


async def test_after_a_jump_back_nothing_waits_for_the_old_time() -> None:
    ahead, in_backoff = db_time(HOUR), db_time(HOUR + 600)
    waits = await submit(probes.echo, "a", created_at=ahead, run_at=ahead, wake_at=ahead)
    tried = await submit(probes.echo, "a", started_at=ahead, run_at=in_backoff)
    delayed = await submit(probes.echo, "a", created_at=ahead, run_at=in_backoff)
    later = await submit(probes.echo, "a", run_at=db_time(600))
    held = await submit(probes.echo, "a", status=Status.RUNNING, run_at=ahead, wake_at=ahead)
    late = await submit(probes.echo, "a", pushes=1, wake_at=ahead)
    left_alone = [await row_of(each) for each in (delayed, later)]
    for _ in range(2):  # each process notices the jump for itself
        await note_another_time(HOUR)
        await judging_watch().step()
    now = await database_now()
    row = await row_of(waits)
    assert row.run_at <= now
    assert row.wake_at <= now + seconds(HEAD_START)
    assert now + seconds(590) < (await row_of(tried)).run_at <= now + seconds(600)
    assert [await row_of(each) for each in (delayed, later)] == left_alone
    row = await row_of(held)
    assert row.run_at <= now
    assert row.wake_at <= now + seconds(get_settings().lease)
    assert (await row_of(late)).wake_at <= now + seconds(HEAD_START)


async def test_after_a_jump_back_jobs_are_corrected_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One statement for a long backlog would be given up again and again."""
    monkeypatch.setattr(claims, "CORRECTED", 2)
    ahead = db_time(HOUR)
    ids = [await submit(probes.echo, "a", created_at=ahead, run_at=ahead) for _ in range(5)]
    await note_another_time(HOUR)
    with statements() as made:
        await judging_watch().step()
    now = await database_now()
    assert [each for each in ids if (await row_of(each)).run_at > now] == []
    assert len([each for each, _ in made if "UPDATE jobs" in each and "LIMIT" in each]) == 3


async def next_ticks_after_a_jump(
    session: AsyncSession, stored: datetime, *triggers: Trigger
) -> dict[str, datetime]:
    """The next ticks of schedules with these triggers, by kind, that all had the stored one."""
    for each in triggers:
        schedule = Schedule(type(each).__name__, each, probes.echo, ("tick",))
        values = {"definition": definition_of(schedule), "task": schedule.task.name}
        await session.execute(insert(schedules).values(id=schedule.id, next_tick=stored, **values))
    await session.commit()
    await note_another_time(2 * HOUR)
    await wake()
    next_ticks = select(schedules.c.id, schedules.c.next_tick)
    found = {row.id: row.next_tick for row in await session.execute(next_ticks)}
    await session.execute(delete(schedules))
    await session.commit()
    return found


async def test_after_a_jump_back_schedules_go_on(session: AsyncSession) -> None:
    ahead = await database_now() + seconds(2 * HOUR)
    found = await next_ticks_after_a_jump(session, ahead, Interval(seconds=1), Date(ahead))
    assert found["Interval"] <= await database_now() + seconds(1)
    assert found["Date"] == ahead


async def test_by_new_rules_of_its_time_zone_a_tick_may_be_later(session: AsyncSession) -> None:
    """Else it would fire at the stored time, and then at its own."""
    own = (await database_now() + seconds(2 * HOUR)).replace(second=0, microsecond=0)
    daily = Cron(f"{own.minute} {own.hour} * * *")
    found = await next_ticks_after_a_jump(session, own - seconds(HOUR), daily)
    assert found == {"Cron": own}
