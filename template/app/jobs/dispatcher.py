"""Turns due ticks into jobs. However many clocks wake it, each tick is one job."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.contextvars import bound_contextvars

from app.core.concurrency import heartbeat, to_the_end
from app.core.control import control_session
from app.core.database import IS_SQLITE
from app.core.outages import Jump, database_clock, tell
from app.core.tracing import ticking
from app.jobs.contract import find_task
from app.jobs.due import due, move, take_ahead, take_due
from app.jobs.metrics import MISSED, TICKS_LATE
from app.jobs.schedules import ON_TIME, StoredSchedule
from app.jobs.submit import submit_named
from app.jobs.table import jobs
from app.jobs.timetable import database_now
from app.jobs.triggers import next_tick

log = structlog.get_logger(__name__)

BATCH = 100  # schedules, and jobs, in one transaction
WAKE_LIMIT = 5  # seconds; the next wake-up tries again
STALE = 10  # seconds without success after which this process isn't ready

# A process that froze while it locks rows would stop their schedules in all other processes.
LIMITS = text(
    "SELECT set_config('idle_in_transaction_session_timeout', '2s', true),"
    " set_config('statement_timeout', '4s', true)"
)

_reported: set[str] = set()  # broken schedules, to log each once
_heeded: Jump | None = Jump(0, 0)  # the jump of the clock that next ticks were corrected for
_succeeded: float | None = None  # when a wake-up last succeeded, by the monotonic clock


async def run_due() -> None:
    """Submit a job for each due tick and move the schedules on, a batch in each transaction."""
    broken: set[str] = set()
    while await _run_batch(broken):
        pass


async def _run_batch(broken: set[str]) -> bool:
    """Returns whether more may be due. It adds schedules that can't be run to `broken`."""
    async with control_session() as session:
        now = await _begin(session)
        found = await take_due(session, now, broken, BATCH)
        left = BATCH
        for schedule in found:
            try:
                left -= await _dispatch(session, schedule, now, left)
            except SQLAlchemyError:  # the database's fault, not the schedule's
                raise
            except Exception as error:
                _report(schedule.id, error)
                broken.add(schedule.id)
            else:
                _reported.discard(schedule.id)
            if left <= 0:
                return True
    return len(found) == BATCH


async def _begin(session: AsyncSession) -> datetime:
    """Limit the transaction. Returns the database's time."""
    if not IS_SQLITE:
        await session.execute(LIMITS)
    asked = time.monotonic()
    now = await database_now(session)
    database_clock.note(now, asked)
    return now


async def _bring_nearer() -> None:
    """Correct next ticks after the database's clock went back: they are too far ahead.

    A tick that had its job gets no second one, because its key is taken.
    """
    async with control_session() as session:
        now = await _begin(session)
        for schedule in await take_ahead(session, now):
            with suppress(ValueError):  # a broken schedule is reported when it is due
                nearest = next_tick(schedule.read().trigger, now)
                if nearest and schedule.next_tick and nearest < schedule.next_tick:
                    await move(session, schedule, next_tick=nearest)
                    log.warning("schedule.tick_moved", schedule_id=schedule.id)


async def _dispatch(
    session: AsyncSession, schedule: StoredSchedule, now: datetime, limit: int
) -> int:
    """Submit the due ticks of one schedule. Returns how much of the limit that used."""
    wanted, task = schedule.read(), find_task(schedule.task)
    args = task.check(wanted.args)  # else a host would take them for its own release's
    if not schedule.next_tick:
        raise ValueError(f"its next tick can't be read: {schedule.next_tick}")
    first = schedule.next_tick
    found = due(wanted.trigger, first, now, wanted.grace, wanted.catch_up, limit)
    last_job = schedule.last_job_id or None
    values: dict[str, Any] = {"next_tick": found.next_tick, "last_job_id": last_job}
    if found.missed_since:
        values |= {"missed_since": found.missed_since, "missed_until": found.missed_until}
        MISSED.add()
        log.warning("schedule.ticks_missed", schedule_id=schedule.id, since=f"{found.missed_since}")
    for tick in found.ticks:
        if wanted.overlap == "skip" and await _unfinished(session, values["last_job_id"]):
            log.info("schedule.tick_skipped", schedule_id=schedule.id, tick=f"{tick}")
            continue
        key = f"schedule:{schedule.id}:{tick:%Y-%m-%dT%H:%M:%SZ}"
        with bound_contextvars(schedule_id=schedule.id), ticking(schedule.id):
            job = await submit_named(session, task, args, key=key, keep_key=True)
        if job.created:  # else another clock was faster, and the key is taken
            values |= {"last_tick": tick, "last_job_id": job.id}
            if tick < now - ON_TIME:
                TICKS_LATE.add()
    await move(session, schedule, **values)
    return max(1, len(found.ticks))


async def _unfinished(session: AsyncSession, job_id: UUID | None) -> bool:
    found = select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.status.in_(["pending", "running"]))
    return (await session.execute(found)).first() is not None


def _report(schedule_id: str, error: Exception) -> None:
    if schedule_id not in _reported:
        log.error("schedule.broken", schedule_id=schedule_id, error=repr(error))
    _reported.add(schedule_id)


async def wake() -> None:
    """Clocks call this. It runs `run_due` for a limited time, logs errors, and never raises."""
    global _succeeded
    _succeeded = _succeeded or time.monotonic()
    try:
        async with asyncio.timeout(WAKE_LIMIT):
            await run_due()
            await _heed_a_jump()
        _succeeded = time.monotonic()
    except Exception as error:
        tell("dispatcher.failed", error)
    heartbeat("clock")


async def _heed_a_jump() -> None:
    """The first wake-up corrects as well: the clock may have gone back while nothing ran."""
    global _heeded
    jump = database_clock.jump
    if jump is not _heeded:
        await _bring_nearer()
        _heeded = jump


async def every_second() -> None:
    """A clock for a process with an event loop: it wakes the dispatcher at each full second."""
    while True:
        await asyncio.sleep(1.005 - time.time() % 1)
        await to_the_end(wake())


def is_clock() -> bool:
    """Whether something in this process wakes the dispatcher."""
    return _succeeded is not None


async def ping_clock() -> None:
    """Raise RuntimeError if no wake-up of this process has succeeded for a while."""
    if _succeeded is None or time.monotonic() - _succeeded > STALE:
        raise RuntimeError("the dispatcher of schedules is not woken, or fails")
