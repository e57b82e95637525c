"""A try of a job, and what it can come to: written behind a fence, many in one statement."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import (
    JSON,
    Boolean,
    Connection,
    Float,
    Integer,
    String,
    Update,
    Uuid,
    bindparam,
    case,
    func,
    text,
    update,
)

from app.core.control import Control
from app.core.database import IS_SQLITE
from app.core.logging import cut
from app.core.outages import is_outage, tell
from app.jobs.contract import Task
from app.jobs.endings import Ended, Ending
from app.jobs.table import HEAD_START, Status, clock, jobs
from app.jobs.tries import tried, tried_postgresql

log = structlog.get_logger(__name__)

MAX_ERROR = 4_000  # characters
BATCH = 100  # outcomes in one statement
# By the id: written like this it keeps the planner from the index of all that runs, which gets long
# while an old transaction is open.
RUNS_STILL = text("jobs.status || '' = 'running'")
PAUSE = 0.5  # seconds before an outcome is written again after the database was away


class LeaseLostError(RuntimeError):
    """The job is no longer this worker's: nothing that this try did may be committed."""


@dataclass(eq=False)
class Claim:
    """One try of one job; `attempt` fences its outcome."""

    id: UUID
    task: Task[..., Any, Any]
    args: dict[str, Any]
    attempt: int
    max_attempts: int
    origin: dict[str, Any] = field(default_factory=dict)  # what submitted it
    queue: str = ""
    waited: float | None = None  # seconds from when it was due to its claim
    lost: bool = False
    fenced: bool = False  # from here on the fence decides
    began: float = field(default_factory=time.monotonic, repr=False)
    ended: Ended | None = field(default=None, repr=False)
    running: asyncio.Task[Any] | None = field(default=None, repr=False)
    driver: Any = field(default=None, repr=False)  # the driver's connection of its last session

    def end(self, ending: Ending, error: str | None = None, cause: Exception | None = None) -> None:
        """Note what this try came to; it is told once that is written."""
        took, this = time.monotonic() - self.began, (self.id, self.task.name, ending)
        self.ended = Ended(*this, self.attempt, self.queue or None, self.waited, took, error, cause)


running_job: ContextVar[Claim] = ContextVar("running_job")


@dataclass(frozen=True)
class CurrentJob:
    """What a task may know of its own job; the first `attempt` is 1."""

    id: UUID
    task: str
    attempt: int
    max_attempts: int


def current_job() -> CurrentJob:
    """The job that the calling task runs for. Raises LookupError outside one."""
    claim = running_job.get()
    return CurrentJob(claim.id, claim.task.name, claim.attempt, claim.max_attempts)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a try came to. `delay` is in seconds; `more` tries are allowed than before."""

    id: UUID
    attempt: int
    status: Status
    result: Any = None
    error: str | None = None
    delay: float | None = None
    more: int = 0
    keep_args: bool = True

    @property
    def values(self) -> dict[str, Any]:
        """The parameters of `ONE`."""
        return {f"its_{name}": getattr(self, name) for name in self.__slots__}


def text_of(error: Exception) -> str:
    """The error as text that a database can keep: cut, without NUL or half a surrogate pair."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:
        text = f"{type(error).__name__}, which can't say what it is"
    return cut(text, MAX_ERROR).encode(errors="replace").decode().replace("\0", "?")


def _one() -> Update:
    """The fence: it matches no row once the job was taken back, cancelled or run by another."""
    status = bindparam("its_status", type_=String)
    delay = bindparam("its_delay", type_=Float)
    waits = status == Status.PENDING
    return (
        update(jobs)
        .where(
            jobs.c.id == bindparam("its_id", type_=Uuid),
            RUNS_STILL,
            jobs.c.attempts == bindparam("its_attempt", type_=Integer),
        )
        .values(
            status=status,
            result=bindparam("its_result", type_=JSON(none_as_null=True)),
            error=bindparam("its_error", type_=String),
            args=case((bindparam("its_keep_args", type_=Boolean), jobs.c.args)),
            max_attempts=jobs.c.max_attempts + bindparam("its_more", type_=Integer),
            tries=case(
                (status == Status.SUCCEEDED, jobs.c.tries),
                else_=tried(bindparam("its_error", type_=String)),
            ),
            pushes=0,
            run_at=func.coalesce(clock(delay), jobs.c.run_at),  # without a delay: as it was
            wake_at=case((waits, clock(HEAD_START))),
            finished_at=case((~waits, clock(0))),
        )
    )


ONE = _one()  # a statement that stays the same object is compiled, and its key made, once

_MANY = text(
    f"""
    UPDATE jobs SET status = its.status, result = its.result::json, error = its.error,
      args = CASE WHEN its.keep_args THEN jobs.args END,
      max_attempts = jobs.max_attempts + its.more, pushes = 0,
      tries = CASE WHEN its.status = 'succeeded' THEN jobs.tries
        ELSE {tried_postgresql("its.error")} END,
      run_at = CASE WHEN its.delay IS NULL THEN jobs.run_at
        ELSE statement_timestamp() + make_interval(secs => its.delay) END,
      wake_at = CASE WHEN its.status = 'pending'
        THEN statement_timestamp() + make_interval(secs => {HEAD_START}) END,
      finished_at = CASE WHEN its.status <> 'pending' THEN statement_timestamp() END
    FROM unnest(
      CAST(:id AS uuid[]), CAST(:attempt AS int[]), CAST(:status AS text[]),
      CAST(:result AS text[]), CAST(:error AS text[]), CAST(:delay AS float8[]),
      CAST(:more AS int[]), CAST(:keep_args AS bool[])
    ) AS its (id, attempt, status, result, error, delay, more, keep_args)
    WHERE jobs.id = its.id AND {RUNS_STILL} AND jobs.attempts = its.attempt
    """  # noqa: S608 - nothing of it comes from outside
)


def write_all(connection: Connection, group: Sequence[Outcome]) -> int:
    """Returns how many were written: the others' leases are lost."""
    if IS_SQLITE or len(group) == 1:
        return connection.execute(ONE, [each.values for each in group]).rowcount
    columns = {name: [getattr(each, name) for each in group] for name in Outcome.__slots__}
    columns["result"] = [None if r is None else json.dumps(r) for r in columns["result"]]
    return connection.execute(_MANY, columns).rowcount


class Outcomes:
    """Writes what tries came to, in groups: what ends during a write goes with the next one."""

    def __init__(self, statements: Control) -> None:
        self._control = statements
        self._waiting: list[tuple[Outcome, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def write(self, outcome: Outcome) -> None:
        """Returns when it is written or refused; a database that is away is waited for."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((outcome, written))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_on())
        await asyncio.shield(written)

    async def _write_on(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            await self._write_patiently([outcome for outcome, _ in batch])
            for _, written in batch:
                if not written.done():
                    written.set_result(None)

    async def _write_patiently(self, group: Sequence[Outcome]) -> None:
        while True:
            try:
                count = await self._control(lambda connection: write_all(connection, group))
            except Exception as error:
                if not is_outage(error):
                    return await self._write_apart(group, error)
                tell("outcomes.delayed", error)
                await asyncio.sleep(PAUSE)
            else:
                if count < len(group):
                    log.warning("outcomes.dropped", jobs=len(group) - count)
                return None

    async def _write_apart(self, group: Sequence[Outcome], error: Exception) -> None:
        """A value that the database refuses makes its own job dead, not its neighbours."""
        if len(group) > 1:
            for outcome in group:
                await self._write_patiently([outcome])
            return
        (refused,) = group
        log.error("outcome.refused", job_id=str(refused.id), error=repr(error).splitlines()[0])
        if refused.status is not Status.DEAD:
            reason = f"NonRetryable: the database refused the outcome: {text_of(error)}"
            dead = Outcome(refused.id, refused.attempt, Status.DEAD, error=reason)
            await self._write_patiently([dead])
