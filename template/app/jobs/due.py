"""Which ticks of a schedule run, and the transactions that move schedules on."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.control import control_session
from app.core.database import IS_SQLITE
from app.core.outages import database_clock
from app.jobs.schedules import ON_TIME, CatchUp
from app.jobs.table import database_now, jobs
from app.jobs.triggers import Trigger, next_tick

# A process that froze while it locks rows would stop their schedules in all other processes.
LIMITS = text(
    "SELECT set_config('idle_in_transaction_session_timeout', '2s', true),"
    " set_config('statement_timeout', '4s', true)"
)


@dataclass
class Batch:
    """One transaction, what it may still do, and what to tell once it has committed."""

    session: AsyncSession
    now: datetime
    left: int  # jobs
    until: float  # the monotonic time
    said: list[Callable[[], object]] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        return self.left <= 0 or time.monotonic() > self.until


@asynccontextmanager
async def begin(number: int, seconds: float) -> AsyncIterator[Batch]:
    """Begin a batch, which is full after so many jobs, or after so many seconds."""
    async with control_session() as session:
        if not IS_SQLITE:
            await session.execute(LIMITS)
        asked = time.monotonic()
        now = await database_now(session)
        database_clock.note(now, asked)
        batch = Batch(session, now, number, asked + seconds)
        yield batch
    for tell in batch.said:
        tell()


@dataclass(frozen=True)
class Due:
    """What to do about one schedule now. Ticks between the two `missed` times never run."""

    ticks: list[datetime]
    next_tick: datetime | None
    missed_since: datetime | None = None
    missed_until: datetime | None = None


def due(
    trigger: Trigger,
    first: datetime,
    now: datetime,
    grace: timedelta,
    catch_up: CatchUp,
    limit: int,
) -> Due:
    """Choose the ticks that run, from `first` on. Late ones run as `catch_up` says.

    Ticks that are older than the grace never run. Ticks over the limit stay due.
    """
    on_time, oldest = now - ON_TIME, now - max(grace, ON_TIME)
    tick: datetime | None = first
    missed: tuple[datetime, datetime] | tuple[()] = ()
    if first < oldest:
        missed, tick = (first, oldest), next_tick(trigger, oldest)
    if catch_up == "latest" and tick and tick < on_time:
        tick = _last_before(on_time, trigger, tick)
    ticks: list[datetime] = []
    while tick and tick <= now and len(ticks) < limit:
        ticks.append(tick)
        tick = next_tick(trigger, tick)
    return Due(ticks, tick, *missed)


def _last_before(end: datetime, trigger: Trigger, first: datetime) -> datetime:
    """The last tick from `first` on that is before `end`, found without computing all of them."""

    def is_last(seconds: int) -> bool:
        tick = next_tick(trigger, first + timedelta(seconds=seconds))
        return tick is None or tick >= end

    seconds = range(int((end - first).total_seconds()) + 1)
    return first + timedelta(seconds=bisect_left(seconds, True, key=is_last))


def corrected(trigger: Trigger, stored: datetime, now: datetime) -> datetime | None:
    """The next tick in place of the stored one, if that is wrong.

    After the clock went back, the stored tick is too far ahead. New rules of a time zone can move a
    tick, too. If they moved it to before now, it runs at the stored time: else it would never run.
    """
    right = next_tick(trigger, now)
    if right is None or right == stored:
        return None
    if right > stored and next_tick(trigger, stored - (right - stored)) != right:
        return None
    return right


async def is_unfinished(session: AsyncSession, job_id: UUID | None) -> bool:
    found = select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.status.in_(["pending", "running"]))
    return (await session.execute(found)).first() is not None
