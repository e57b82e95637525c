"""Inserts, changes and reads schedules as rows of this process's own database."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import Date, Schedule
from app.jobs.schedules import definition_of
from app.jobs.table import db_time, jobs, schedules
from app.jobs.triggers import Trigger, next_tick
from tests.engine import probes
from tests.engine.jobs.rows import database_now

SECOND, MINUTE, HOUR = (timedelta(seconds=n) for n in (1, 60, 3600))


async def add(
    session: AsyncSession, trigger: Trigger, since: timedelta, **values: Any
) -> tuple[str, datetime]:
    """Add a schedule whose ticks have been due since then; returns its id and the first tick."""
    schedule = Schedule(f"s-{uuid4()}", trigger, probes.echo, ("tick",))
    first = next_tick(trigger, await database_now() - since)
    assert first
    stored: dict[str, Any] = {"id": schedule.id, "task": schedule.task.name, "next_tick": first}
    stored["definition"] = definition_of(schedule)
    await session.execute(insert(schedules).values(stored | values))
    await session.commit()
    return str(values.get("id", schedule.id)), first


async def add_late(session: AsyncSession, **values: Any) -> tuple[str, datetime]:
    """Add a schedule with a single tick, which was due a minute ago."""
    return await add(session, Date(await database_now() - MINUTE), HOUR, **values)


async def add_many(session: AsyncSession, number: int, trigger: Trigger, tick: datetime) -> None:
    """Add schedules that all have this next tick."""
    schedule = Schedule("many", trigger, probes.echo, ("tick",))
    shared = {"definition": definition_of(schedule), "task": probes.echo.name, "next_tick": tick}
    rows = [{"id": f"many {each:03}", **shared} for each in range(number)]
    await session.execute(insert(schedules), rows)
    await session.commit()


async def put_off_ticks(session: AsyncSession) -> None:
    """For a test in which no clock runs: a schedule's tick may have come since the suite began."""
    await session.execute(update(schedules).values(next_tick=db_time(3600)))
    await session.commit()


async def row_of(session: AsyncSession, schedule_id: str) -> Row[Any]:
    row = (await session.execute(select(schedules).where(schedules.c.id == schedule_id))).one()
    await session.commit()
    return row


async def jobs_of(session: AsyncSession, schedule_id: str) -> list[Row[Any]]:
    ours = jobs.c.key.startswith(f"schedule:{schedule_id}:")
    rows = (await session.execute(select(jobs).where(ours).order_by(jobs.c.key))).all()
    await session.commit()
    return list(rows)


async def change_definition(session: AsyncSession, **fields: Any) -> None:
    [definition] = await session.scalars(select(schedules.c.definition))
    await session.execute(update(schedules).values(definition={**definition, **fields}))
    await session.commit()
