"""The statements about the table `schedules`. Callers decide what they mean."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    case,
    cast,
    delete,
    false,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import IS_SQLITE, UtcDateTime
from app.jobs.contract import registry
from app.jobs.schedules import ON_TIME, StoredSchedule
from app.jobs.table import MAX_COUNT, NOT_PAUSED, db_time, schedules

Values = Mapping[str, Any]  # of columns

# Somebody may have written JSON's null by hand.
BY_OPERATOR = schedules.c.declared.is_(None) | (cast(schedules.c.declared, String) == "null")

# SQLite locks no rows. A write locks the file, also if it changes nothing.
_LOCK = update(schedules).where(false()).values(next_tick=None)


async def find(session: AsyncSession, limit: int, after: str | None) -> list[StoredSchedule]:
    """Schedules in the order of their ids, from the first or from the one after this id."""
    found = select(schedules).order_by(schedules.c.id).limit(limit)
    if after is not None:
        found = found.where(schedules.c.id > after)
    return await _read(session, found)


async def get(session: AsyncSession, schedule_id: str) -> StoredSchedule | None:
    found = await _read(session, select(schedules).where(schedules.c.id == schedule_id))
    return found[0] if found else None


async def lock(session: AsyncSession, ids: Collection[str]) -> dict[str, StoredSchedule]:
    """Lock the schedules that have one of these ids."""
    named = select(schedules).where(schedules.c.id.in_(ids)).with_for_update()
    return {each.id: each for each in await _read(session, named)}


async def add(session: AsyncSession, schedule_id: str, values: Values) -> None:
    """Raises IntegrityError if the id is taken."""
    await session.execute(insert(schedules).values({**values, "id": schedule_id}))


async def change(
    session: AsyncSession, schedule_id: str, values: Values, revision: int | None = None
) -> bool:
    """Change a schedule, if it still has this revision. Returns whether it had."""
    same = [schedules.c.id == schedule_id]
    if revision is not None:
        same.append(schedules.c.revision == revision)
    again = case((schedules.c.revision >= MAX_COUNT, 1), else_=schedules.c.revision + 1)
    changed = update(schedules).where(*same).values({**values, "revision": again})
    return (await session.execute(changed.returning(schedules.c.id))).first() is not None


async def delete_made_by_operator(session: AsyncSession, schedule_id: str) -> bool:
    """Returns whether an operator had made it."""
    own = schedules.c.id == schedule_id, BY_OPERATOR
    deleted = delete(schedules).where(*own).returning(schedules.c.id)
    return (await session.execute(deleted)).first() is not None


async def delete_undeclared(session: AsyncSession, declared: Collection[str]) -> None:
    """Delete what the code declared once, and declares no more."""
    gone = ~BY_OPERATOR, schedules.c.id.not_in(declared)
    await session.execute(delete(schedules).where(*gone))


async def take_due(
    session: AsyncSession, now: datetime, broken: Iterable[str], limit: int
) -> list[StoredSchedule]:
    """Lock due schedules, without those whose task isn't known here.

    Those on time come first, so that no backlog makes them late; then the most overdue.
    """
    runnable = text(NOT_PAUSED), schedules.c.task.in_(list(registry()))
    found = select(schedules).where(schedules.c.next_tick <= now, *runnable)
    found = found.where(schedules.c.id.not_in(broken)).limit(limit)
    found = found.order_by(schedules.c.next_tick < now - ON_TIME, schedules.c.next_tick)
    taken = await _read(session, found.with_for_update(skip_locked=True))
    if IS_SQLITE and taken:
        await session.execute(_LOCK)  # until then another clock may move them on
        taken = await _read(session, found)
    return taken


async def take_ahead(
    session: AsyncSession, now: datetime, after: str, limit: int
) -> list[StoredSchedule]:
    """Lock schedules that aren't due yet, in the order of their ids, from after this id on."""
    ahead = select(schedules).where(schedules.c.next_tick > now, text(NOT_PAUSED))
    ahead = ahead.where(schedules.c.id > after).order_by(schedules.c.id).limit(limit)
    return await _read(session, ahead.with_for_update(skip_locked=True))


async def move(session: AsyncSession, schedule: StoredSchedule, values: Values) -> None:
    """Change nothing if another clock has moved it meanwhile: SQLite locks no rows."""
    was = literal(schedule.next_tick, UtcDateTime)
    unmoved = schedules.c.id == schedule.id, _second(schedules.c.next_tick) == _second(was)
    await session.execute(update(schedules).where(*unmoved).values(dict(values)))


async def overdue(session: AsyncSession) -> timedelta:
    tick = schedules.c.next_tick
    found = select(db_time(0), func.min(tick)).where(tick <= db_time(0), text(NOT_PAUSED))
    now, first = (await session.execute(found)).one()
    return now - first if first else timedelta(0)


async def _read(session: AsyncSession, found: Select[Any]) -> list[StoredSchedule]:
    rows = await session.execute(found.add_columns(db_time(0).label("now")))
    return [StoredSchedule.of(**row._mapping) for row in rows]


def _second(tick: ColumnElement[Any]) -> ColumnElement[Any]:
    """SQLite compares texts, and somebody may have written one without microseconds."""
    return func.strftime("%Y-%m-%d %H:%M:%S", tick) if IS_SQLITE else tick
