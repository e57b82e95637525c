"""A database far away answers slowly. Then each wake-up does a part, and commits it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import ColumnElement, event, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.outages import database_clock
from app.jobs import Date, Interval, dispatcher
from app.jobs.dispatcher import STALE, ping_clock, wake
from app.jobs.table import db_time, schedules
from tests.engine.jobs.rows import database_now
from tests.engine.jobs.schedule_rows import HOUR, MINUTE, add_many, jobs_of
from tests.engine.jobs.statements import SESSIONS

pytestmark = pytest.mark.usefixtures("no_other_schedules", "slowly")

MANY = 60
DAY = 24 * HOUR


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Statements take so long that no wake-up has the time to change many schedules."""

    def wait(*_: object) -> None:
        time.sleep(0.045)

    event.listen(SESSIONS, "before_cursor_execute", wait)
    monkeypatch.setattr(dispatcher, "WAKE_LIMIT", 3)
    yield
    event.remove(SESSIONS, "before_cursor_execute", wait)


async def count(session: AsyncSession, condition: ColumnElement[bool]) -> int:
    found = await session.scalar(select(func.count()).select_from(schedules).where(condition))
    await session.commit()
    return found or 0


async def is_ready() -> bool:
    try:
        await ping_clock()
    except RuntimeError:
        return False
    return True


async def test_a_wake_up_commits_what_it_has_done_in_its_time(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = await database_now() - MINUTE
    await add_many(session, MANY, Date(late), late)
    monkeypatch.setattr(dispatcher, "_succeeded", time.monotonic() - 2 * STALE)
    assert not await is_ready()
    seen: list[tuple[int, bool]] = []
    while (left := await count(session, schedules.c.next_tick <= db_time(0))) and len(seen) < 300:
        seen.append((left, await is_ready()))
        await wake()
    assert left == 0
    assert any(left < MANY and ready for left, ready in seen)
    assert len(await jobs_of(session, "many 000")) == 1


async def test_a_jump_back_is_heeded_in_parts(session: AsyncSession) -> None:
    now = await database_now()
    await add_many(session, MANY, Interval(days=1), now + 2 * DAY)
    database_clock.note(now + 2 * DAY, time.monotonic())
    wakes = 0
    while (left := await count(session, schedules.c.next_tick > now + DAY)) and wakes < 300:
        wakes += 1
        await wake()
    assert left == 0
    assert wakes > 1
