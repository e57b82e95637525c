"""Runs one try of a job: calls its task within its time, and says what came of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from app.core.database import IS_SQLITE, JobSession, SyncSessionLocal, jobs_engine, sync_engine
from app.core.outages import is_outage
from app.core.threads import in_thread
from app.jobs.contract import registry
from app.jobs.outcomes import (
    ONE,
    Claim,
    LeaseLostError,
    Outcome,
    failed,
    handed_back,
    running_job,
    succeeded,
    text_of,
)

log = structlog.get_logger(__name__)

OUTAGE = 2  # seconds, about, before a job is tried again that the database wasn't there for


def _bound_the_frozen(connection: Any, record: ConnectionPoolEntry) -> None:
    """What a worker has locked is free after the longest timeout of a task, though it is frozen."""
    longest = max((task.timeout for task in registry().values()), default=timedelta(0))
    cursor = connection.cursor()
    limit = int(longest.total_seconds() * 1000)
    cursor.execute(f"SET idle_in_transaction_session_timeout = {limit}")
    cursor.close()
    connection.commit()


if not IS_SQLITE:
    event.listen(jobs_engine.sync_engine, "connect", _bound_the_frozen)
    event.listen(sync_engine, "connect", _bound_the_frozen)


async def attempt(claim: Claim) -> Outcome | None:
    """Run one try; returns what is still to be written. Cancelled, it hands the job back."""
    with _context(claim):
        try:
            return await _call_in_time(claim)
        except LeaseLostError:
            log.warning("job lost its lease; rolled back")
        except asyncio.CancelledError:
            return _cancelled(claim)
        except Exception as error:
            return _failed(claim, error)
    return None


async def _call_in_time(claim: Claim) -> Outcome | None:
    limit = claim.task.timeout.total_seconds()
    try:
        async with asyncio.timeout(limit) as bound:
            return await _call(claim)
    except TimeoutError:
        if bound.expired():
            raise TimeoutError(f"ran longer than {limit:g} s") from None
        raise


async def _call(claim: Claim) -> Outcome | None:
    """A task with a session writes its outcome there: both are committed, or neither is."""
    task, args = claim.task, claim.task.load(claim.args)
    if task.session is AsyncSession:
        async with JobSession() as session:
            outcome = succeeded(claim, await task.fn(session, **args))
            claim.ending = True
            _fenced(await (await session.connection()).execute(ONE, outcome.values))
            await session.commit()
    elif task.session is Session:
        await in_thread(partial(_call_with_session, claim, args))
    else:
        call = partial(task.fn, **args)
        return succeeded(claim, await (call() if task.is_async else in_thread(call)))
    log.info("job succeeded")
    return None


def _call_with_session(claim: Claim, args: dict[str, Any]) -> None:
    with SyncSessionLocal() as session:
        outcome = succeeded(claim, claim.task.fn(session, **args))
        claim.ending = True
        _fenced(session.connection().execute(ONE, outcome.values))
        session.commit()


def _fenced(written: Any) -> None:
    if written.rowcount == 0:
        raise LeaseLostError


def _cancelled(claim: Claim) -> Outcome | None:
    if running := asyncio.current_task():
        running.uncancel()
    if claim.lost:
        log.warning("job stopped: it was cancelled or taken over")
        return None
    log.info("job handed back")  # this process ends: it runs elsewhere, and the try isn't counted
    return handed_back(claim)


def _failed(claim: Claim, error: Exception) -> Outcome:
    if is_outage(error):
        log.warning("no database for the job: handed back", error=repr(error).splitlines()[0])
        return handed_back(claim, OUTAGE * random.uniform(0.5, 1.5))  # noqa: S311
    log.warning("job failed", error=text_of(error), exc_info=error)
    return failed(claim, error)


@contextmanager
def _context(claim: Claim) -> Iterator[None]:
    token = running_job.set(claim)
    bound = {"job_id": str(claim.id), "task": claim.task.name, "attempt": claim.attempt}
    with structlog.contextvars.bound_contextvars(**bound):
        try:
            yield
        finally:
            running_job.reset(token)
