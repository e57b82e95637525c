"""What a process of the worker's pool keeps from job to job: a loop, and a host of one slot.

Between two jobs the loop waits for the engine's statements itself: it has nothing else to do then,
and a statement that it goes on beside costs three times as much. A signal gives up a silent
connection, since the loop can't.
"""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime
from functools import cache, partial
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from app.core.celery import producer_app, rows
from app.core.celery.broker import UNREACHABLE
from app.core.celery.messages import CeleryBell, broker_is_away, messages_are_late
from app.core.control import LIMIT, control, control_now
from app.core.database import IS_SQLITE
from app.core.drivers import give_up
from app.core.outages import is_outage, tell
from app.jobs.backends import HEAD_START, Claim, Host, Taken, find_task, registry

T = TypeVar("T")

OUTAGE = 1  # seconds for which a message is held while there is no database

STANDARD_ERROR = 2  # the file itself: Celery has put a log in the place of Python's

HAND_BACK = signal.SIGUSR2  # from the worker's main process, when the stop grace is over

_waited_for: Any = None  # the driver's connection


def set_alarm() -> None:
    """Once in a process, in its main thread: Python's signals arrive there."""
    signal.signal(signal.SIGALRM, lambda *_: give_up(_waited_for))


async def control_between_jobs(step: Callable[[Connection], T], *, transaction: bool = False) -> T:
    """Like `control`, while no job runs: beside one, `control` extends its lease.

    So the two of them have no more connections than `control` has elsewhere.
    """
    if IS_SQLITE or transaction:
        return await control(step, transaction=transaction)
    return control_now(lambda connection: _within_limit(step, connection))


def _within_limit(step: Callable[[Connection], T], connection: Connection) -> T:
    global _waited_for
    _waited_for = connection.connection.driver_connection
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        return step(connection)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class PoolHost(Host):
    """Runs one job at a time in a process of the pool: those whose messages come.

    It looks for jobs itself while the broker is away, and when messages are late though it is idle:
    the worker's connection to the broker may be silent.
    """

    def __init__(self) -> None:
        super().__init__("celery", slots=1, statements=control_between_jobs)
        self._bell = CeleryBell(producer_app)
        self._busy = time.monotonic()
        self._returned = asyncio.Event()

    def _may_take(self) -> bool:
        is_idle = time.monotonic() - self._busy > HEAD_START
        none_come = broker_is_away() or (is_idle and messages_are_late())
        return none_come and super()._may_take()

    async def show_life(self) -> None:
        """End this process when its loop hasn't turned for a whole lease: its job is lost by then.

        A task that holds the GIL keeps any Python code from doing so, its timeout included. What
        ends the process is a thread in C, which writes first where each of Python's threads is.
        """
        while True:
            self._show_life()
            await asyncio.sleep(self._lease / 3)

    def _show_life(self) -> None:
        if self._running:
            faulthandler.dump_traceback_later(self._lease, exit=True, file=STANDARD_ERROR)
        else:
            faulthandler.cancel_dump_traceback_later()

    def _start(self, taken: Taken) -> asyncio.Task[None]:
        running = super()._start(taken)
        self._show_life()
        return running

    async def run(self, job_id: UUID, name: str) -> None:
        """Run a job if it is due and nobody else runs it; a duplicate message does nothing."""
        while held := [claim.running for claim in self._claims.values() if claim.running]:
            await asyncio.wait(held)
        self._busy = time.monotonic()
        if taken := await self._take_by_message(job_id, name):
            self._returned.clear()
            running = self._start(taken)
            await self._returned.wait()
            self._busy = time.monotonic()
            if find_task(taken.task).max_running is not None:
                await asyncio.wait([running])  # until its row says so
                await self._make_way(taken.task)

    async def _take_by_message(self, job_id: UUID, name: str) -> Taken | None:
        """A message that can't be used for an outage is missed later, like one that was lost."""
        try:
            return await self._claim(job_id, name) or await self._claim_by_row(job_id, name)
        except SQLAlchemyError as error:
            if not is_outage(error):
                raise
            tell("message.deferred", error)
            await asyncio.sleep(OUTAGE)
            return None

    async def _claim_by_row(self, job_id: UUID, name: str) -> Taken | None:
        """Not what its message says: the row decides what runs."""
        task = await self._control(lambda connection: rows.current_task(connection, job_id))
        if task is not None and task != name and task in registry():
            return await self._claim(job_id, task)
        if task is not None:
            await self._control(lambda connection: rows.forget(connection, [job_id]))
        return None

    async def _make_way(self, name: str) -> None:
        """Of a task that bounds how many run at once, the next one may run."""
        with suppress(SQLAlchemyError, *UNREACHABLE):  # else the main process sends it, later
            await self._bell.count()
            await self._bell.fill([name])

    def _free_slot(self, claim: Claim) -> None:
        super()._free_slot(claim)
        self._show_life()
        self._returned.set()

    def hand_back(self) -> None:
        self.stop_looking()
        for job in self._running:
            job.cancel()


class Child:
    """What a process of the pool keeps from job to job: a loop, in a thread of its own."""

    def __init__(self) -> None:
        set_alarm()
        self._loop = asyncio.new_event_loop()
        self._host: PoolHost
        threading.Thread(target=self._loop.run_forever, name="jobs", daemon=True).start()
        self._call(self._open()).result()
        signal.signal(HAND_BACK, lambda *_: self._loop.call_soon_threadsafe(self._host.hand_back))

    async def _open(self) -> None:
        self._host = PoolHost()
        host = self._host
        endless = host.keep_leases(), host.look_on(), host.show_life()
        self._endless = [asyncio.create_task(each) for each in endless]

    def _call(self, step: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(step, self._loop)

    def run(self, task_name: str, job_id: UUID) -> None:
        running = self._call(self._host.run(job_id, task_name))
        try:
            running.result()
        finally:  # Celery's time limit is an error that comes from nowhere
            running.cancel()

    def checkpoint(self, queue: str, late: datetime) -> None:
        forget = partial(rows.forget_late, queue=queue, until=late)
        try:
            self._call(control_between_jobs(forget)).result()
        except SQLAlchemyError as error:  # the next one comes soon
            tell("checkpoint.failed", error)

    def close(self) -> None:
        """What it took while the broker was away gets the rest of the stop grace, too."""
        self._call(self._host.drain()).result()


@cache
def this_child() -> Child:
    """Made once in each process of the pool."""
    return Child()
