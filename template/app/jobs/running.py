"""A try while it runs, and what its task may know of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from opentelemetry.trace import Span
from sqlalchemy import Connection, event

from app.config import get_settings
from app.core.concurrency import in_thread
from app.core.database import IS_SQLITE, jobs_engine, sync_engine
from app.core.drivers import give_up
from app.jobs.contract import Arguments, Task, find_task, registry
from app.jobs.endings import Ended, Ending, Origin
from app.jobs.looks import Taken

T = TypeVar("T")


class LeaseLostError(RuntimeError):
    """This try no longer holds its job: nothing that it did may be committed."""


@dataclass(eq=False)
class Claim:
    """One try of one job. Its outcome is written only if the row still has this `attempt`."""

    id: UUID
    task: Task[..., Any, Any]
    args: Arguments
    attempt: int
    max_attempts: int
    origin: Origin = field(default_factory=dict)  # what submitted it
    queue: str = ""
    waited: float | None = None
    span: Span | None = field(default=None, repr=False)
    lost: bool = False
    fenced: bool = False  # its outcome is being written: a lost lease stops it no more
    began: float = field(default_factory=time.monotonic, repr=False)
    ended: Ended | None = field(default=None, repr=False)
    running: asyncio.Task[Any] | None = field(default=None, repr=False)
    drivers: set[Any] = field(default_factory=set, repr=False)  # the drivers' open connections
    abandoned: bool = False

    @property
    def is_stuck(self) -> bool:
        """Whether the task has taken no notice of the end of its time limit."""
        limit = self.task.timeout.total_seconds() + get_settings().lease
        return time.monotonic() - self.began > limit and not (self.fenced or self.ended)

    def end(self, ending: Ending, error: str | None = None, cause: Exception | None = None) -> None:
        """Note how this try ended. That is reported once it is written."""
        took = time.monotonic() - self.began
        known = self.id, self.task.name, self.queue, ending, self.attempt, self.waited
        self.ended = Ended(*known, took, error, cause, self.origin, self.span)

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Call it in a thread. If this is cancelled, refuse what the thread writes from then on."""
        try:
            return await in_thread(call)
        except asyncio.CancelledError:
            self.abandoned = True
            for driver in tuple(self.drivers):  # the thread may wait on one that is silent
                give_up(driver)
            raise


def claim_of(taken: Taken) -> Claim:
    """The try that begins now."""
    task, fences = find_task(taken.task), (taken.attempt, taken.max_attempts)
    return Claim(taken.id, task, taken.args, *fences, taken.origin, taken.queue, taken.waited)


running_job: ContextVar[Claim] = ContextVar("running_job")


def note_begin(connection: Connection) -> None:
    """Note that the current job uses the connection. Raises LeaseLostError if it was abandoned."""
    if claim := running_job.get(None):
        claim.drivers.add(connection.connection.driver_connection)
        if claim.abandoned:
            raise LeaseLostError


def note_end(_: Any, record: Any) -> None:
    if claim := running_job.get(None):
        claim.drivers.discard(record.driver_connection)


def _begin_with_limit(connection: Connection) -> None:
    """Let PostgreSQL end the transaction of a worker that froze, and with it all its locks.

    Both settings are for this transaction alone, because a pooler gives the connection to others.
    At another isolation level the outcome would fail if the lease was extended meanwhile.
    """
    longest = max((task.timeout for task in registry().values()), default=timedelta(0))
    limit = min(int(longest.total_seconds() * 1000), 2**31 - 1)  # the most that PostgreSQL takes
    begin = "BEGIN ISOLATION LEVEL READ COMMITTED"
    connection.exec_driver_sql(f"{begin}; SET LOCAL idle_in_transaction_session_timeout = {limit}")


for engine in (jobs_engine.sync_engine, sync_engine):
    event.listen(engine, "begin", note_begin)
    event.listen(engine, "checkin", note_end)
    if not IS_SQLITE:
        engine.update_execution_options(isolation_level="AUTOCOMMIT")  # else the driver begins, too
        event.listen(engine, "begin", _begin_with_limit)


@dataclass(frozen=True)
class CurrentJob:
    """What a task may know of its own job. The first `attempt` is 1."""

    id: UUID
    task: str
    attempt: int
    max_attempts: int


def current_job() -> CurrentJob:
    """The job that the calling task runs for. Raises LookupError outside one."""
    if not (claim := running_job.get(None)):
        raise LookupError("no job runs here: in a test, run the task by own_jobs.run(task, ...)")
    return CurrentJob(claim.id, claim.task.name, claim.attempt, claim.max_attempts)
