"""SQLite locks no rows, and a process has a limited number of connections to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest
from sqlalchemy import Executable, event, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.config import get_settings
from app.core.database import JobSession, sync_engine
from app.jobs import Interval
from app.jobs.dispatcher import run_due
from app.jobs.table import jobs, schedules
from tests.engine.jobs.schedule_rows import (
    HOUR,
    MINUTE,
    add,
    add_late,
    change_definition,
    jobs_of,
    row_of,
)
from tests.engine.jobs.statements import SESSIONS

pytestmark = [pytest.mark.sqlite, pytest.mark.usefixtures("no_other_schedules")]


@contextmanager
def after_the_first_read(*statements: Executable) -> Iterator[None]:
    """Another clock commits these as soon as the dispatcher has read what is due."""

    def change(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if "FROM schedules" in statement and not changed:
            changed.append(statement)
            with sync_engine.begin() as other:
                for each in statements:
                    other.execute(each)

    changed: list[str] = []
    event.listen(SESSIONS, "after_cursor_execute", change)
    try:
        yield
    finally:
        event.remove(SESSIONS, "after_cursor_execute", change)
    assert changed


async def test_a_schedule_that_was_moved_on_meanwhile_is_left_alone(session: AsyncSession) -> None:
    schedule_id, tick = await add_late(session)
    with after_the_first_read(update(schedules).values(next_tick=tick + 24 * HOUR)):
        await run_due()
    assert (await row_of(session, schedule_id)).next_tick == tick + 24 * HOUR
    assert await jobs_of(session, schedule_id) == []


async def test_a_tick_that_another_clock_has_left_out_does_not_run(session: AsyncSession) -> None:
    """The schedule's last job ran when the other clock looked, and has ended meanwhile."""
    schedule_id, tick = await add(session, Interval(minutes=1), 3 * MINUTE)
    await change_definition(session, catch_up="each", overlap="skip")
    await run_due()
    [last] = await jobs_of(session, schedule_id)
    await session.execute(update(schedules).values(next_tick=tick + MINUTE))
    await session.commit()
    left_out = update(schedules).values(next_tick=tick + HOUR)
    ended = update(jobs).where(jobs.c.id == last.id).values(status="succeeded", wake_at=None)
    with after_the_first_read(left_out, ended):
        await run_due()
    assert [job.id for job in await jobs_of(session, schedule_id)] == [last.id]


async def test_jobs_that_keep_all_connections_make_no_tick_late(session: AsyncSession) -> None:
    schedule_id, _ = await add_late(session)
    async with AsyncExitStack() as stack:
        for _ in range(get_settings().max_jobs):
            await (await stack.enter_async_context(JobSession())).execute(select(1))
        await run_due()
    assert len(await jobs_of(session, schedule_id)) == 1
