"""Writes the outcomes of tries, many in one statement, unless the try has lost its job."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
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
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from app.core.control import Control
from app.core.database import IS_SQLITE
from app.core.outages import is_in_the_way, is_outage, tell
from app.jobs.claims import is_cancelled
from app.jobs.endings import Ending, tell_end
from app.jobs.running import Claim, LeaseLostError
from app.jobs.table import FREE, HEAD_START, Status, db_time, jobs
from app.jobs.tries import text_of, tried, tried_postgresql

log = structlog.get_logger(__name__)

BATCH = 100  # outcomes in one statement
# Written like this it keeps the planner from the index of all running jobs, which gets long while
# an old transaction is open.
RUNS_STILL = text("jobs.status || '' = 'running'")
PAUSE = 0.5  # seconds before an outcome is written again after the database was away
LOCKED = 0.05  # the same after somebody else had locked its row


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a try came to. `delay` is in seconds. `more` is how many tries are added."""

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


def _one() -> Update:
    """Write an outcome, unless the job was taken back, cancelled, or claimed by another host."""
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
            run_at=func.coalesce(db_time(delay), jobs.c.run_at),  # no delay: unchanged
            wake_at=case((waits, db_time(HEAD_START))),
            finished_at=case((~waits, db_time(0))),
        )
    )


ONE = _one()  # SQLAlchemy compiles a statement once, as long as it stays the same object

_free = jobs.alias("free")
_same = _free.c.id == bindparam("its_id", type_=Uuid)
# Neither this statement nor the next one waits for a row that somebody has locked.
_ALONE = ONE.where(jobs.c.id.in_(select(_free.c.id).where(_same).with_for_update(**FREE)))

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
    ) AS its (id, attempt, status, result, error, delay, more, keep_args),
    LATERAL (SELECT id FROM jobs WHERE id = its.id FOR NO KEY UPDATE SKIP LOCKED) AS free
    WHERE jobs.id = free.id AND {RUNS_STILL} AND jobs.attempts = its.attempt
    RETURNING jobs.id, jobs.attempts
    """  # noqa: S608 - nothing of it comes from outside
).columns(jobs.c.id, jobs.c.attempts)

Fence = tuple[UUID, int]  # a job's id and attempt
Written = dict[Fence, Outcome | None]


def write_all(connection: Connection, group: Sequence[Outcome]) -> dict[Fence, bool]:
    """Returns those that were written. The others have lost their leases.

    A row that somebody has locked holds up no other one. It stays as it is, and has False.

    On SQLite, which doesn't say which of a group were written, it raises LeaseLostError instead.
    """
    if IS_SQLITE:
        count = connection.execute(ONE, [each.values for each in group]).rowcount
        if 0 < count < len(group):
            raise LeaseLostError
        return {(each.id, each.attempt): True for each in group if count}
    done = dict.fromkeys(_write_free(connection, group), True)
    if len(done) < len(group):
        mine = tuple_(jobs.c.id, jobs.c.attempts).in_([(each.id, each.attempt) for each in group])
        held = select(jobs.c.id, jobs.c.attempts).where(mine, RUNS_STILL)
        done = {(row.id, row.attempts): False for row in connection.execute(held)} | done
    return done


def _write_free(connection: Connection, group: Sequence[Outcome]) -> list[Fence]:
    if len(group) == 1:
        [one] = group
        return [(one.id, one.attempt)] * connection.execute(_ALONE, one.values).rowcount
    columns = {name: [getattr(each, name) for each in group] for name in Outcome.__slots__}
    columns["result"] = [None if r is None else json.dumps(r) for r in columns["result"]]
    return [(row.id, row.attempts) for row in connection.execute(_MANY, columns)]


class Outcomes:
    """Writes outcomes in groups. Those that come during a write go with the next one."""

    def __init__(self, statements: Control) -> None:
        self._control = statements
        self._waiting: list[tuple[Outcome, asyncio.Future[Outcome | None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._stopped = False

    def stop(self) -> None:
        """Write no more outcomes. The caller cancels those that wait for one to be written."""
        self._stopped = True
        if self._writer:
            self._writer.cancel()

    async def write(self, outcome: Outcome) -> Outcome | None:
        """Returns the outcome that was written: another one if the database refuses this one.

        Returns None if the lease was lost. It waits for a database that is away or read-only,
        and for other sessions that are in the way, until the stop.
        """
        if self._stopped:
            raise asyncio.CancelledError
        written: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        self._add(outcome, written)
        return await asyncio.shield(written)

    def _add(self, outcome: Outcome, written: asyncio.Future[Outcome | None]) -> None:
        self._waiting.append((outcome, written))
        if not self._stopped and (self._writer is None or self._writer.done()):
            self._writer = asyncio.create_task(self._write_on())

    async def end(self, claim: Claim, outcome: Outcome) -> None:
        """Write the outcome. If another one was written, or none, note that in the claim."""
        written = await self.write(outcome)
        if written is None:
            claim.end(Ending.LOST)
        elif written is not outcome or (claim.ended and claim.ended.ending is Ending.LOST):
            claim.end(Ending.DEAD, written.error)

    async def tell(self, claim: Claim) -> None:
        """Report how the try has ended, once that is written."""
        ended = claim.ended
        if ended and ended.ending is Ending.LOST:
            with suppress(SQLAlchemyError):
                if await self._control(lambda connection: is_cancelled(connection, claim.id)):
                    ended = replace(ended, ending=Ending.CANCELLED)
        if ended:
            tell_end(ended)

    async def _write_on(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            done = await self._write_patiently([outcome for outcome, _ in batch])
            for outcome, written in batch:
                known = done.get(fence := (outcome.id, outcome.attempt))
                if known is None and fence in done:  # its row is locked
                    asyncio.get_running_loop().call_later(LOCKED, self._add, outcome, written)
                elif not written.done():
                    written.set_result(known)

    async def _write_patiently(self, group: Sequence[Outcome]) -> Written:
        while True:
            try:
                done = await self._control(lambda connection: write_all(connection, group))
            except Exception as error:
                if not is_outage(error) and not is_in_the_way(error):
                    return await self._write_apart(group, error)
                tell("outcomes.delayed", error)
                await asyncio.sleep(PAUSE)
            else:
                known = {(each.id, each.attempt): each for each in group}
                return {fence: known[fence] if written else None for fence, written in done.items()}

    async def _write_apart(self, group: Sequence[Outcome], error: Exception) -> Written:
        """Write each by itself. A lost lease drops one outcome; a refused value ends one job."""
        if len(group) > 1:
            apart = [await self._write_patiently([outcome]) for outcome in group]
            return {fence: each for done in apart for fence, each in done.items()}
        (refused,) = group
        log.warning("outcome.refused", job_id=str(refused.id), error=repr(error).splitlines()[0])
        if refused.status is Status.DEAD:
            return {}
        reason = f"NonRetryable: the database refused the outcome: {text_of(error)}"
        dead = Outcome(refused.id, refused.attempt, Status.DEAD, error=reason)
        return await self._write_patiently([dead])
