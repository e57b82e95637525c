"""Turns due ticks into jobs. A clock only wakes it: any number may, each tick is one job."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Row, delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import JobSession
from app.jobs.contract import find_task, registry
from app.jobs.schedules import Schedule, Trigger, dump, load, next_tick
from app.jobs.submit import Jobs
from app.jobs.table import clock, schedules

log = structlog.get_logger(__name__)

ON_TIME = timedelta(seconds=5)  # a tick is a misfire only if it is later than this
MAX_TICKS = 1000  # of one schedule in one transaction
WAKE_LIMIT = 5  # seconds; the next wake-up tries again


@dataclass(frozen=True)
class Due:
    """What is to be done about one schedule now."""

    ticks: list[datetime]
    next_tick: datetime | None
    missed_since: datetime | None = None
    missed_until: datetime | None = None


def due(trigger: Trigger, first: datetime, now: datetime, grace: timedelta, catch_up: str) -> Due:
    """Which ticks from `first` on run: each on time, late ones as declared, older ones not."""
    oldest = now - max(grace, ON_TIME)
    tick: datetime | None = first
    missed: tuple[datetime, datetime] | tuple[None, None] = (None, None)
    if first < oldest:
        missed = (first, oldest)
        tick = next_tick(trigger, oldest)
    late: list[datetime] = []
    on_time: list[datetime] = []
    while tick and tick <= now and len(late) + len(on_time) < MAX_TICKS:
        (on_time if now - tick <= ON_TIME else late).append(tick)
        tick = next_tick(trigger, tick)
    return Due((late if catch_up == "each" else late[-1:]) + on_time, tick, *missed)


async def run_due() -> None:
    """Submit a job for each due tick and move the schedules on, in one transaction."""
    async with JobSession.begin() as session:
        if session.get_bind().dialect.name == "postgresql":
            # Frozen while it holds the rows, this process would silence the schedule everywhere.
            await session.execute(text("SET LOCAL idle_in_transaction_session_timeout = '3s'"))
        now = (await session.execute(select(clock(0)))).scalar_one()
        claimed = (
            select(schedules)
            .where(schedules.c.next_tick <= clock(0), ~schedules.c.paused)
            .where(schedules.c.task.in_(registry()))
            .order_by(schedules.c.next_tick)
            .limit(100)
            .with_for_update(skip_locked=True)
        )
        for row in (await session.execute(claimed)).all():
            await _dispatch(session, row, now)


async def _dispatch(session: AsyncSession, row: Row[Any], now: datetime) -> None:
    definition = row.definition
    grace = timedelta(seconds=definition["misfire_grace"])
    found = due(load(definition["trigger"]), row.next_tick, now, grace, definition["catch_up"])
    values: dict[str, Any] = {"next_tick": found.next_tick}
    if found.missed_since:
        log.warning("ticks missed", schedule=row.id, since=str(found.missed_since))
        values |= {"missed_since": found.missed_since, "missed_until": found.missed_until}
    for tick in found.ticks:
        key = f"schedule:{row.id}:{tick:%Y-%m-%dT%H:%M:%SZ}"
        task = find_task(row.task)
        job = await Jobs(session).submit_named(task, definition["args"], key=key, keep_key=True)
        values |= {"last_tick": tick, "last_job_id": job.id}
    unmoved = update(schedules).where(schedules.c.id == row.id)
    await session.execute(unmoved.where(schedules.c.next_tick == row.next_tick).values(values))


async def wake() -> None:
    """What a clock calls: `run_due`, bounded, and no error ends the clock."""
    try:
        async with asyncio.timeout(WAKE_LIMIT):
            await run_due()
    except Exception as error:
        log.warning("dispatcher failed, the next second tries again", error=repr(error))


async def every_second() -> None:
    """The plainest clock, for a process that has a loop."""
    while True:
        await asyncio.sleep(1.005 - datetime.now(UTC).timestamp() % 1)
        await wake()


def definition_of(schedule: Schedule) -> dict[str, Any]:
    """A declared schedule as it is stored. Raises what `Task.dump` raises for wrong arguments."""
    return {
        "trigger": dump(schedule.trigger),
        "args": find_task(schedule.task.name).dump(*schedule.args),
        "misfire_grace": schedule.misfire_grace.total_seconds(),
        "catch_up": schedule.catch_up,
        "task": schedule.task.name,
    }


async def reconcile(session: AsyncSession, declared: Sequence[Schedule]) -> None:
    """Bring the table in line with the code: add, change (a pause stays), remove; REST's stay."""
    rows = {row.id: row for row in (await session.execute(select(schedules))).all()}
    for schedule in declared:
        definition, row = definition_of(schedule), rows.get(schedule.id)
        if row is not None and row.declared == definition:
            continue
        values = {
            "declared": definition,
            "definition": definition,
            "task": definition["task"],
            "next_tick": next_tick(schedule.trigger, datetime.now(UTC)),
            "revision": row.revision + 1 if row else 1,
        }
        if row is None:
            await session.execute(insert(schedules).values(id=schedule.id, **values))
        else:
            change = update(schedules).where(schedules.c.id == schedule.id)
            await session.execute(change.values(values))
    gone = schedules.c.id.not_in([schedule.id for schedule in declared])
    await session.execute(delete(schedules).where(schedules.c.declared.is_not(None), gone))
