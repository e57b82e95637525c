"""Runs jobs in a process of the worker's pool, by an event loop and a host with one slot.

Between two jobs the engine's statements block the loop. It has nothing else to do then, and an
asynchronous statement costs three times as much. A blocked loop can't give up a silent connection,
so a signal does that.
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
from app.jobs.backends import HEAD_START, Host, Taken, find_task, registry

T = TypeVar("T")

OUTAGE = 1  # seconds for which a message is held while the database is away

STANDARD_ERROR = 2  # the file descriptor, because Celery has replaced `sys.stderr` by a log

HAND_BACK = signal.SIGUSR2  # from the worker's main process, when the stop grace is over

_waited_for: Any = None  # the driver's connection


def set_alarm() -> None:
    """Call it once in a process, in the main thread, which gets Python's signals."""
    signal.signal(signal.SIGALRM, lambda *_: give_up(_waited_for))


async def control_between_jobs(step: Callable[[Connection], T], *, transaction: bool = False) -> T:
    """Like `control`, for the time between two jobs. During a job `control` extends the lease.

    So this process needs no more connections than other ones.
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
    """Runs the jobs whose messages come, one at a time, in a process of the pool.

    It looks for jobs itself while the broker is away. It also does so when messages are late while
    it is idle, because the worker's connection to the broker may be silent.
    """

    last_writes = 2.0  # seconds, because the worker's main process waits for three

    def __init__(self) -> None:
        super().__init__("celery", slots=1, statements=control_between_jobs)
        self._bell = CeleryBell(producer_app)
        self._busy = time.monotonic()
        self._returned = asyncio.Event()
        self.at_return = self._returned.set
        self._is_timed = False

    def _may_take(self) -> bool:
        is_idle = time.monotonic() - self._busy > HEAD_START
        none_come = broker_is_away() or (is_idle and messages_are_late())
        return none_come and super()._may_take()

    async def show_life(self) -> None:
        """End this process if its loop stands still for a whole lease: its job is lost by then.

        While a task holds the GIL no Python code runs, its timeout included. So a thread in C ends
        the process, and first writes where each of Python's threads is.
        """
        while True:
            self._show_life()
            await asyncio.sleep(self._lease / 3)

    def _show_life(self) -> None:
        """Begin the time again. A job that starts just before that still has a whole lease."""
        self._is_timed = bool(self._running)
        if self._is_timed:
            limit = self._lease * 4 / 3
            faulthandler.dump_traceback_later(limit, exit=True, file=STANDARD_ERROR)
        else:
            faulthandler.cancel_dump_traceback_later()

    def _start(self, taken: Taken) -> asyncio.Task[None]:
        running = super()._start(taken)
        if not self._is_timed:  # each call makes a thread
            self._show_life()
        return running

    async def run(self, job_id: UUID, name: str) -> None:
        """Run a job if it is due and nobody else runs it. A duplicate message does nothing."""
        while held := self._held():
            await asyncio.wait(held)
        if self._stopped:  # this process ends soon, and the row gets another message
            return
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
        """If the database is away, drop the message: like a lost one, it is sent again."""
        try:
            return await self._claim(job_id, name) or await self._claim_by_row(job_id, name)
        except SQLAlchemyError as error:
            if not is_outage(error):
                raise
            tell("message.deferred", error)
            await asyncio.sleep(OUTAGE)
            return None

    async def _claim_by_row(self, job_id: UUID, name: str) -> Taken | None:
        """Claim the job by the task that its row names, if the message names another one."""
        task = await self._control(lambda connection: rows.current_task(connection, job_id))
        if task is not None and task != name and task in registry():
            return await self._claim(job_id, task)
        if task is not None:
            await self._control(lambda connection: rows.forget(connection, [job_id]))
        return None

    async def _make_way(self, name: str) -> None:
        """Send the next message of a task with `max_running`, whose next job may run now."""
        with suppress(SQLAlchemyError, TimeoutError, *UNREACHABLE):  # the main process sends it
            await self._bell.count()
            await self._bell.fill([name])


class Child:
    """The event loop of a process of the pool, in a thread of its own, and its host."""

    def __init__(self) -> None:
        set_alarm()
        self._loop = asyncio.new_event_loop()
        self._host: PoolHost
        threading.Thread(target=self._loop.run_forever, name="jobs", daemon=True).start()
        self._call(self._open()).result()
        signal.signal(HAND_BACK, lambda *_: self._call(self._host.hand_back()))

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
        finally:  # Celery's time limit may raise an error at any place
            running.cancel()

    def checkpoint(self, queue: str, late: datetime) -> None:
        forget = partial(rows.forget_late, queue=queue, until=late)
        try:
            self._call(control_between_jobs(forget)).result()
        except SQLAlchemyError as error:  # the next one comes soon
            tell("checkpoint.failed", error)

    @property
    def is_stuck(self) -> bool:
        """Whether a task runs on that has taken no notice of the end of its time limit."""
        return any(claim.is_stuck for claim in list(self._host._claims.values()))

    def close(self) -> None:
        """Give a job that the host found itself the rest of the stop grace, too, unless stuck."""
        end = self._host.hand_back if self.is_stuck else self._host.drain
        self._call(end()).result()


@cache
def this_child() -> Child:
    """The `Child` of this process, which is made at the first call."""
    return Child()
