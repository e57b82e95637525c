"""Runs one job: claim it, keep its lease, call the task, write the outcome behind the fence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Update, event, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from app.config import get_settings
from app.core.database import IS_SQLITE, JobSession, SyncSessionLocal, jobs_engine, sync_engine
from app.core.threads import in_thread
from app.jobs import outcomes, table
from app.jobs.contract import UnknownTaskError, find_task, registry
from app.jobs.outcomes import Claim, LeaseLostError, SuspectError, running_job
from app.jobs.relay import in_background, to_the_end

log = structlog.get_logger(__name__)

ANY_CRASHES = 1_000_000


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


class Runner:
    """Runs jobs in this process, at most `slots` at once."""

    def __init__(self, slots: int) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._known: set[UUID] = set()
        self._claims: dict[UUID, Claim] = {}
        # Of the jobs that are one crash from dead one kills its workers: they run one at a time.
        self._suspect = asyncio.Lock()

    async def run(self, task_name: str, job_id: UUID) -> None:
        """Run a job if it is due and nobody else runs it; a duplicate message does nothing.

        Raises only CancelledError, after the job was handed back.
        """
        if job_id in self._known:
            return
        self._known.add(job_id)
        try:
            async with self._slots:
                await self._run(task_name, job_id, get_settings().max_crashes - 2)
        except SuspectError:
            if not self._suspect.locked():  # else the relay pushes it again
                async with self._suspect, self._slots:
                    await self._run(task_name, job_id, ANY_CRASHES)
        finally:
            self._known.discard(job_id)

    async def _run(self, task_name: str, job_id: UUID, max_crashes: int) -> None:
        if claim := await self._claim_whole(task_name, job_id, max_crashes):
            await self._attempt(claim)

    async def _claim_whole(self, task_name: str, job_id: UUID, max_crashes: int) -> Claim | None:
        """Claim; when cancelled meanwhile, hand back at once, not at the lease's end."""
        claiming = asyncio.ensure_future(self._claim(task_name, job_id, max_crashes))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with suppress(SuspectError):
                if claim := await claiming:
                    await _write(outcomes.handed_back(claim))
            raise

    async def _claim(self, task_name: str, job_id: UUID, max_crashes: int) -> Claim | None:
        try:
            task = find_task(task_name)
        except UnknownTaskError:
            log.error("unknown task: left for a worker that knows it", task=task_name)
            return None
        counts = task.max_running is not None
        async with JobSession.begin() if counts else jobs_engine.begin() as connection:
            if counts:
                await _one_claim_at_a_time(connection, task.name)
            taken = table.claim(task.name, task.max_running)
            which = {"job_id": job_id, "max_crashes": max_crashes}
            if row := (await connection.execute(taken, which)).first():
                return Claim(job_id, task, row.args or {}, row.attempts, row.max_attempts)
            crashes = await connection.scalar(table.wait_for_a_slot(job_id))
        if crashes is not None and crashes > max_crashes:
            raise SuspectError
        return None

    async def _attempt(self, claim: Claim) -> None:
        claim.running = asyncio.current_task()
        self._claims[claim.id] = claim
        with _context(claim):
            try:
                await self._call_in_time(claim)
                log.info("job succeeded")
            except LeaseLostError:
                log.warning("job lost its lease; rolled back")
            except asyncio.CancelledError:
                await self._cancelled(claim)
            except Exception as error:
                await _fail(claim, error)
            finally:
                del self._claims[claim.id]

    async def _call_in_time(self, claim: Claim) -> None:
        limit = claim.task.timeout.total_seconds()
        try:
            async with asyncio.timeout(limit) as bound:
                await self._call(claim)
        except TimeoutError:
            if bound.expired():
                raise TimeoutError(f"ran longer than {limit:g} s") from None
            raise

    async def _call(self, claim: Claim) -> None:
        task, args = claim.task, claim.task.load(claim.args)
        if task.session is AsyncSession:
            async with JobSession() as session:
                finish = outcomes.succeeded(claim, await task.fn(session, **args))
                _fenced(await (await session.connection()).execute(*finish))
                await session.commit()
        elif task.session is Session:
            await in_thread(partial(_call_with_session, claim, args))
        else:
            call = partial(task.fn, **args)
            result = await (call() if task.is_async else in_thread(call))
            async with jobs_engine.begin() as connection:
                _fenced(await connection.execute(*outcomes.succeeded(claim, result)))

    async def _cancelled(self, claim: Claim) -> None:
        if not claim.lost:  # this process ends: the job runs elsewhere, and the try isn't counted
            await _write(outcomes.handed_back(claim))
            log.info("job handed back")
            raise asyncio.CancelledError
        log.warning("job stopped: it was cancelled or taken over")
        if running := asyncio.current_task():
            running.uncancel()

    async def keep_leases(self) -> None:
        """Extend the leases of all running jobs in one statement, and stop those that are lost."""
        while True:
            await asyncio.sleep(get_settings().lease / 3)
            try:
                await to_the_end(self._beat())
            except Exception as error:
                log.warning("heartbeat failed, trying again", error=repr(error).splitlines()[0])

    async def _beat(self) -> None:
        claims = dict(self._claims)
        if not claims:
            return
        async with jobs_engine.begin() as connection:
            held = [(job_id, each.attempt) for job_id, each in claims.items()]
            kept = set((await connection.scalars(table.extend(held))).all())
        for job_id, lost in claims.items():
            if job_id not in kept and self._claims.get(job_id) is lost and lost.running:
                lost.lost = True
                lost.running.cancel()

    async def drain(self, grace: float) -> None:
        """Give running jobs `grace` seconds to end, then hand the rest back."""
        running = {claim.running for claim in self._claims.values() if claim.running}
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=grace)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


@asynccontextmanager
async def running(slots: int) -> AsyncIterator[Runner]:
    """A runner whose leases are kept; at the end it drains within the stop grace."""
    runner = Runner(slots)
    async with in_background(runner.keep_leases()):
        try:
            yield runner
        finally:
            await runner.drain(get_settings().stop_grace)


@contextmanager
def _context(claim: Claim) -> Iterator[None]:
    token = running_job.set(claim)
    bound = {"job_id": str(claim.id), "task": claim.task.name, "attempt": claim.attempt}
    with structlog.contextvars.bound_contextvars(**bound):
        try:
            yield
        finally:
            running_job.reset(token)


def _call_with_session(claim: Claim, args: dict[str, Any]) -> None:
    with SyncSessionLocal() as session:
        finish = outcomes.succeeded(claim, claim.task.fn(session, **args))
        _fenced(session.connection().execute(*finish))
        session.commit()


def _fenced(written: Any) -> None:
    if written.rowcount == 0:
        raise LeaseLostError


async def _one_claim_at_a_time(connection: AsyncConnection | AsyncSession, task: str) -> None:
    """Counting and claiming must not interleave; SQLite's write lock sees to it by itself."""
    if not IS_SQLITE:
        await connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(task))))


async def _fail(claim: Claim, error: Exception) -> None:
    log.warning("job failed", error=outcomes.text_of(error), exc_info=error)
    try:
        await _write(outcomes.failed(claim, error))
    except Exception as unwritten:
        reason = repr(unwritten).splitlines()[0]
        log.error("outcome not written: the job is taken back after its lease", error=reason)


async def _write(outcome: Update) -> None:
    async with jobs_engine.begin() as connection:
        await connection.execute(outcome)
