"""Turns due ticks into jobs. However many clocks wake it, each tick is one job."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import structlog
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from structlog.contextvars import bound_contextvars

from app.core.concurrency import heartbeat, to_the_end
from app.core.outages import Jump, database_clock, tell
from app.core.tracing import ticking
from app.jobs.contract import Arguments, Task, find_task
from app.jobs.due import Batch, begin, corrected, due, is_unfinished
from app.jobs.metrics import MISSED, TICKS_LATE
from app.jobs.schedule_rows import move, take_ahead, take_due
from app.jobs.schedules import ON_TIME, StoredSchedule
from app.jobs.submit import submit_named

log = structlog.get_logger(__name__)

T = TypeVar("T")

BATCH = 100  # schedules, and jobs, in one transaction
WAKE_LIMIT = 5  # seconds after which a silent batch is given up, and a wake-up begins no other
STALE = 10  # seconds without success after which this process isn't ready

OF_VALUES = DataError, IntegrityError  # errors that are about a row's values

_reported: set[str] = set()  # broken schedules, to log each once
_succeeded: float | None = None  # when a batch last succeeded, by the monotonic clock


class RefusedError(Exception):
    """The database refused a schedule's job, and nothing else is possible in the transaction."""


@dataclass
class _Correction:
    """How far next ticks are corrected for a jump of the clock, in the order of their ids."""

    jump: Jump | None = None
    after: str | None = ""  # None: all are


_correction = _Correction()


async def run_due(until: float = math.inf) -> None:
    """Submit a job for each due tick and move the schedules on, a batch in each transaction.

    After the monotonic time `until` it begins no further batch.
    """
    broken: set[str] = set()
    while await _in_time(_run_batch(broken)) and time.monotonic() < until:
        pass


async def _in_time(batch: Coroutine[Any, Any, T]) -> T:
    """A batch that is silent is given up. Each one that commits is a success."""
    global _succeeded
    async with asyncio.timeout(WAKE_LIMIT):
        result = await batch
    _succeeded = _succeeded and time.monotonic()  # only a clock has one
    return result


async def _run_batch(broken: set[str]) -> bool:
    """Returns whether more may be due. It adds schedules that can't be run to `broken`."""
    try:
        async with begin(BATCH, WAKE_LIMIT / 5) as batch:
            found = await take_due(batch.session, batch.now, broken, BATCH)
            for schedule in found:
                await _try(batch, schedule, broken)
                if batch.is_full:
                    break
    except RefusedError:
        return True
    return bool(found) and (batch.is_full or len(found) == BATCH)


async def _try(batch: Batch, schedule: StoredSchedule, broken: set[str]) -> None:
    """Raises RefusedError at the schedule's first error in the database.

    A savepoint takes as long as the rest. So only a schedule that is known to fail gets one.
    """
    said, is_known = len(batch.said), schedule.id in _reported
    try:
        async with batch.session.begin_nested() if is_known else nullcontext():
            await _dispatch(batch, schedule)
    except Exception as error:
        if isinstance(error, SQLAlchemyError) and not isinstance(error, OF_VALUES):
            raise  # no other schedule would fare better
        del batch.said[said:]
        _report(schedule.id, error)
        broken.add(schedule.id)
        if isinstance(error, OF_VALUES) and not is_known:
            raise RefusedError from error
    else:
        _reported.discard(schedule.id)


async def _correct_page(after: str) -> str | None:
    """Correct next ticks after the database's clock went back, or a time zone got new rules.

    It begins after this id, and returns the last one, or None if there are no more. A tick that had
    its job gets no second one, because its key is taken.
    """
    async with begin(BATCH, WAKE_LIMIT / 5) as batch:
        found = await take_ahead(batch.session, batch.now, after, BATCH)
        for schedule in found:
            await _correct(batch, schedule)
            after = schedule.id
            if batch.is_full:
                break
    return after if found and (batch.is_full or len(found) == BATCH) else None


async def _correct(batch: Batch, schedule: StoredSchedule) -> None:
    with suppress(ValueError):  # a broken schedule is reported when it is due
        trigger, stored = schedule.read().trigger, schedule.next_tick
        if stored and (right := corrected(trigger, stored, batch.now)):
            await move(batch.session, schedule, {"next_tick": right})
            moved = partial(log.warning, "schedule.tick_moved", schedule_id=schedule.id)
            batch.said.append(moved)


async def _dispatch(batch: Batch, schedule: StoredSchedule) -> None:
    """Submit the due ticks of one schedule, at least the first, and move it on."""
    wanted, task = schedule.read(), find_task(schedule.task)
    args = task.check(wanted.args)  # else a host would take them for its own release's
    if not schedule.next_tick:
        raise ValueError(f"its next tick can't be read: {schedule.next_tick}")
    found = due(
        wanted.trigger, schedule.next_tick, batch.now, wanted.grace, wanted.catch_up, batch.left
    )
    last_job = schedule.last_job_id or None
    values: dict[str, Any] = {"next_tick": found.next_tick, "last_job_id": last_job}
    if found.missed_since:
        values |= {"missed_since": found.missed_since, "missed_until": found.missed_until}
        since = f"{found.missed_since}"
        missed = partial(log.warning, "schedule.ticks_missed", schedule_id=schedule.id, since=since)
        batch.said += [MISSED.add, missed]
    taken = False
    for tick in found.ticks:
        if tick > found.ticks[0] and (batch.is_full or taken):
            values["next_tick"] = tick
            break
        batch.left -= 1
        if wanted.overlap == "skip" and await is_unfinished(batch.session, values["last_job_id"]):
            skipped = partial(log.info, "schedule.tick_skipped", schedule_id=schedule.id)
            batch.said.append(partial(skipped, tick=f"{tick}"))
            continue
        submitted = await _submit(batch, schedule.id, tick, task, args)
        taken = not submitted  # then its last job is newer than what was read here
        values |= submitted
    await move(batch.session, schedule, values)


async def _submit(
    batch: Batch, schedule_id: str, tick: datetime, task: Task[..., Any, Any], args: Arguments
) -> dict[str, Any]:
    """Returns what changes in the schedule's row."""
    key = f"schedule:{schedule_id}:{tick:%Y-%m-%dT%H:%M:%SZ}"
    with bound_contextvars(schedule_id=schedule_id), ticking(schedule_id):
        job = await submit_named(batch.session, task, args, key=key, keep_key=True)
    if not job.created:  # another clock was faster, and the key is taken
        return {}
    if tick < batch.now - ON_TIME:
        batch.said.append(TICKS_LATE.add)
    return {"last_tick": tick, "last_job_id": job.id}


def _report(schedule_id: str, error: Exception) -> None:
    if schedule_id not in _reported:
        log.error("schedule.broken", schedule_id=schedule_id, error=repr(error))
    _reported.add(schedule_id)


async def wake() -> None:
    """Clocks call this. It runs `run_due` for a limited time, logs errors, and never raises."""
    global _succeeded
    _succeeded = _succeeded or time.monotonic()
    until = time.monotonic() + WAKE_LIMIT
    try:
        await run_due(until)
        await _heed_a_jump(until)
    except Exception as error:
        tell("dispatcher.failed", error)
    heartbeat("clock")


async def _heed_a_jump(until: float) -> None:
    """The first wake-ups correct as well: the clock may have gone back while nothing ran."""
    global _correction
    if database_clock.jump is not _correction.jump:
        _correction = _Correction(database_clock.jump)
    while (after := _correction.after) is not None:
        _correction.after = await _in_time(_correct_page(after))
        if time.monotonic() > until:
            break


async def every_second() -> None:
    """A clock for a process with an event loop: it wakes the dispatcher at each full second."""
    while True:
        await asyncio.sleep(1.005 - time.time() % 1)
        await to_the_end(wake())


def is_clock() -> bool:
    """Whether something in this process wakes the dispatcher."""
    return _succeeded is not None


async def ping_clock() -> None:
    """Raise RuntimeError if this process has committed no batch for a while."""
    if _succeeded is None or time.monotonic() - _succeeded > STALE:
        raise RuntimeError("the dispatcher of schedules is not woken, or fails")
